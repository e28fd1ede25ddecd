# SPDX-License-Identifier: GPL-2.0-or-later
"""The results database: every run, every boot, every raw sample, in one SQLite file.

What is known before the first boot is written by ``begin_run``; each boot is one
transaction of its own, so a run killed at any moment keeps every boot that ended.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import (
    Connection,
    Engine,
    Row,
    Table,
    create_engine,
    event,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from patchlab import full
from patchlab.calibration import Calibration
from patchlab.errors import StoreError, UsageError
from patchlab.model import Image, bench_arms
from patchlab.record import BootKind, BootRecord, Clock, StoredRun
from patchlab.review import RuleResult
from patchlab.store import rows, schema

BUSY_SECONDS = 30


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run, in a list of runs."""

    id: int
    name: str
    title: str
    arms: tuple[str, ...]
    clock: Clock
    started: str
    finished: str  # "" while it is going on or was interrupted
    seconds: float
    boots: int
    planned: int  # boots; a lost one that was tried again counts twice in ``boots``


class Results:
    """An open results file. Every method may be called from any thread and raises StoreError.

    One that is asked for a run that is not there raises UsageError.
    """

    def __init__(self, path: Path, engine: Engine) -> None:
        self._path = path
        self._engine = engine
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Results:
        """Open the file, or make it. A file of a newer lab is refused."""
        engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _pragmas)
        results = cls(path, engine)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            results._prepare()
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from error
        except BaseException:
            engine.dispose()
            raise
        return results

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()

    # ------------------------------------------------------------ writing

    def begin_run(
        self,
        name: str,
        title: str,
        plan: rows.Plan,
        *,
        images: Mapping[str, Image] | None = None,
        rules: Sequence[RuleResult] = (),
        stages: Mapping[str, float] | None = None,
    ) -> int:
        """Write all that is known before the first boot, and give the run's id.

        One transaction: a run is there whole, or not at all. ``rules`` is what static rules said
        of the arms, ``stages`` the seconds so far: the run started that long ago.
        """
        started = _now(sum((stages or {}).values()))
        row = {"name": name, "title": title, "started": started, "plan": rows.to_json(plan)}
        with self._write() as connection:
            run_id = _insert(connection, schema.RUNS, row)
            for variant, image in (images or {}).items():
                entry = {"run": run_id, "variant": variant, "image": rows.to_json(image)}
                _insert(connection, schema.IMAGES, entry)
            for result in rules:
                _insert(connection, schema.RULES, rows.rule(result) | {"run": run_id})
            for stage, seconds in (stages or {}).items():
                _insert(connection, schema.STAGES, _stage(run_id, stage, seconds))
            return run_id

    def save_boot(self, run_id: int, boot: BootRecord) -> None:
        """Keep one boot with all that it gave, in one transaction."""
        row = rows.boot(boot) | {"run": run_id}
        with self._write() as connection:
            boot_id = _insert(connection, schema.BOOTS, row)
            for table, entries in rows.of_boot(boot):
                if entries:
                    stamped = [entry | {"boot": boot_id} for entry in entries]
                    connection.execute(insert(table), stamped)

    def save_stage(self, run_id: int, stage: str, seconds: float) -> int:
        """Add wall seconds to a stage; stages keep the order in which they first came.

        Gives what save_seconds() takes to say later that it were more.
        """
        with self._write() as connection:
            return _insert(connection, schema.STAGES, _stage(run_id, stage, seconds))

    def begin_sitting(self, run_id: int, seconds: float) -> int:
        """A process begins, or goes on with, a run, ``seconds`` after it was started itself."""
        row = {"run": run_id, "started": _now(), "seconds": seconds}
        with self._write() as connection:
            return _insert(connection, schema.SITTINGS, row)

    def save_seconds(self, sitting: int, seconds: float, stage: int, spent: float) -> None:
        """How long a sitting and one of its stages have taken so far."""
        values = ((schema.SITTINGS, sitting, seconds), (schema.STAGES, stage, spent))
        with self._write() as connection:
            for table, row, new in values:
                where = table.c.id == row
                connection.execute(update(table).where(where).values(seconds=new))

    def finish_run(self, run_id: int, seconds: float) -> None:
        """Mark a run as complete; ``seconds`` is the wall clock of all its sittings."""
        values = {"finished": _now(), "seconds": seconds}
        with self._write() as connection:
            connection.execute(update(schema.RUNS).where(schema.RUNS.c.id == run_id).values(values))

    # ------------------------------------------------------------ reading

    def load_run(self, run_id: int) -> StoredRun:
        with self._read() as connection:
            row = connection.execute(
                select(schema.RUNS).where(schema.RUNS.c.id == run_id)
            ).one_or_none()
            if row is None:
                raise UsageError(
                    f"{self._path}: there is no run {run_id}", hint=_which(self._lines(connection))
                )
            plan = rows.from_json(row.plan, rows.Plan)
            return StoredRun(
                id=row.id,
                name=row.name,
                title=row.title,
                baseline=plan.baseline,
                arms=plan.arms,
                features=plan.features,
                sampling=plan.sampling,
                clock=plan.provenance.clock,
                started=row.started,
                finished=row.finished,
                seconds=row.seconds or _sat(connection, run_id),
                stages=_stages(connection, run_id),
                provenance=plan.provenance,
                images=_images(connection, run_id),
                boots=_boots(connection, run_id),
                checks=plan.checks,
                metrics=plan.metrics,
                asked=plan.asked,
                rules=_rules(connection, run_id),
                kinds=plan.kinds,
                ground=plan.ground,
                sensitivity=plan.sensitivity,
                calibration=_calibration(connection, plan),
            )

    def save_calibration(self, found: Calibration) -> None:
        """Keep what a run of the verb calibrate has shown, in place of an earlier reading of it."""
        row = {"run": found.run, "found": rows.to_json(found)}
        with self._write() as connection:
            connection.execute(
                schema.CALIBRATIONS.delete().where(schema.CALIBRATIONS.c.run == found.run)
            )
            connection.execute(insert(schema.CALIBRATIONS), row)

    def latest_run(self, name: str | None = None, arms: Iterable[str] = ()) -> int:
        """The newest run, of that name and with all of these arms if they are given."""
        wanted = set(arms)
        with self._read() as connection:
            lines = self._lines(connection)
        for line in lines:
            if name in (None, line.name) and wanted <= set(line.arms):
                return line.id
        what = " ".join(filter(None, [f"of {name}" if name else "", "with " * bool(wanted)]))
        raise UsageError(
            f"{self._path}: there is no run {what}{', '.join(sorted(wanted))}".rstrip(),
            hint=_which(lines),
        )

    def runs(self) -> list[RunLine]:
        """Every run, the newest first."""
        with self._read() as connection:
            return self._lines(connection)

    # ------------------------------------------------------------ inside

    def _prepare(self) -> None:
        with self._write() as connection:
            found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            if found > schema.VERSION:
                raise StoreError(
                    f"{self._path}: written by a newer lab (schema {found}; this one knows "
                    f"{schema.VERSION})",
                    hint="update the lab, or name another results file",
                )
            foreign = set(inspect(connection).get_table_names()) - set(schema.METADATA.tables)
            if foreign:
                raise StoreError(
                    f"{self._path}: not a results file (it has a table {min(foreign)})",
                    hint="name another results file",
                )
            if found < schema.VERSION:
                _create(connection)

    @contextlib.contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._lock, self._errors(), self._engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._errors(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OverflowError) as error:
            cause = getattr(error, "orig", None) or error
            if full.is_full(error):
                what = f"{self._path}: {cause}"
                raise full.error(what, self._path.parent, 0, full.RESULTS_REMEDY) from error
            raise StoreError(
                f"{self._path}: {cause}",
                hint="the disk may be full, or the file may not be a results file",
            ) from error
        except (msgspec.MsgspecError, zlib.error, ValueError) as error:
            raise StoreError(f"{self._path}: damaged: {error}") from error

    def _lines(self, connection: Connection) -> list[RunLine]:
        count = func.count(schema.BOOTS.c.id)
        query = (
            select(schema.RUNS, count.label("boots"))
            .outerjoin(schema.BOOTS, schema.BOOTS.c.run == schema.RUNS.c.id)
            .group_by(schema.RUNS.c.id)
            .order_by(schema.RUNS.c.id.desc())
        )
        return [_line(row) for row in connection.execute(query)]


def _pragmas(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_mode = WAL")


def _create(connection: Connection) -> None:
    # IF NOT EXISTS: two labs may open a new file at once, and one may die half-way.
    for table in schema.METADATA.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
        for index in table.indexes:
            connection.execute(CreateIndex(index, if_not_exists=True))
    connection.exec_driver_sql(f"PRAGMA user_version = {schema.VERSION}")


def _now(ago: float = 0.0) -> str:
    return (datetime.now(UTC) - timedelta(seconds=ago)).isoformat(timespec="seconds")


def _which(lines: Sequence[RunLine]) -> str:
    if not lines:
        return "there are none yet: runner.py run makes one"
    shown = ", ".join(f"{line.id} ({line.name}: {', '.join(line.arms)})" for line in lines[:5])
    return f"there are: {shown}"


def _insert(connection: Connection, table: Table, row: Mapping[str, Any]) -> int:
    key = connection.execute(insert(table), rows.clean(row)).inserted_primary_key
    assert key is not None
    return int(key[0])


def _line(row: Row[Any]) -> RunLine:
    plan = rows.from_json(row.plan, rows.Plan)
    return RunLine(
        row.id,
        row.name,
        row.title,
        plan.arms,
        plan.provenance.clock,
        row.started,
        row.finished,
        row.seconds,
        row.boots,
        len(plan.arms) * (BootKind.CHECK in plan.kinds)
        + len(bench_arms(plan.arms, plan.sensitivity))
        * (plan.sampling.blocks * (BootKind.BENCH in plan.kinds)),
    )


def _stage(run_id: int, stage: str, seconds: float) -> dict[str, Any]:
    return {"run": run_id, "stage": stage, "seconds": seconds}


def _sat(connection: Connection, run_id: int) -> float:
    """Wall seconds of all sittings of a run so far."""
    query = select(func.sum(schema.SITTINGS.c.seconds)).where(schema.SITTINGS.c.run == run_id)
    return float(connection.execute(query).scalar_one() or 0.0)


def _stages(connection: Connection, run_id: int) -> dict[str, float]:
    stages: dict[str, float] = {}
    query = select(schema.STAGES).where(schema.STAGES.c.run == run_id).order_by(schema.STAGES.c.id)
    for row in connection.execute(query):
        stages[row.stage] = stages.get(row.stage, 0.0) + row.seconds
    return stages


def _images(connection: Connection, run_id: int) -> dict[str, Image]:
    query = select(schema.IMAGES).where(schema.IMAGES.c.run == run_id)
    return {row.variant: rows.from_json(row.image, Image) for row in connection.execute(query)}


def _calibration(connection: Connection, plan: rows.Plan) -> Calibration | None:
    """The newest calibration of the same clock and QEMU that has one of the run's features."""
    query = select(schema.CALIBRATIONS).order_by(schema.CALIBRATIONS.c.run.desc())
    wanted = (plan.provenance.clock.value, plan.provenance.qemu)
    for row in connection.execute(query):
        found = rows.from_json(row.found, Calibration)
        features = {metric.feature for metric in found.metrics}
        if (found.clock, found.qemu) == wanted and features & set(plan.features):
            return found
    return None


def _rules(connection: Connection, run_id: int) -> tuple[RuleResult, ...]:
    query = select(schema.RULES).where(schema.RULES.c.run == run_id).order_by(schema.RULES.c.id)
    return tuple(rows.to_rule(row) for row in connection.execute(query))


def _boots(connection: Connection, run_id: int) -> tuple[BootRecord, ...]:
    query = select(schema.BOOTS).where(schema.BOOTS.c.run == run_id).order_by(schema.BOOTS.c.id)
    parts = [_parts(connection, table, run_id) for table in rows.PARTS]
    return tuple(
        rows.to_boot(row, *(part.get(row.id, []) for part in parts))
        for row in connection.execute(query)
    )


def _parts(connection: Connection, table: Table, run_id: int) -> dict[int, list[Row[Any]]]:
    query = (
        select(table)
        .join(schema.BOOTS, schema.BOOTS.c.id == table.c.boot)
        .where(schema.BOOTS.c.run == run_id)
        .order_by(table.c.id)
    )
    found: dict[int, list[Row[Any]]] = {}
    for row in connection.execute(query):
        found.setdefault(row.boot, []).append(row)
    return found
