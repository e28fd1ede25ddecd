# SPDX-License-Identifier: GPL-2.0-or-later
"""Values to rows of the results database, and back again. No database here."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Row, Table

from patchlab.model import Sampling
from patchlab.record import (
    BootKind,
    BootRecord,
    CheckInfo,
    CheckResult,
    Clock,
    Finding,
    MetricInfo,
    MetricOutcome,
    Outcome,
    Provenance,
    Sample,
    StoredRun,
)
from patchlab.review import Asked, RuleResult, Ruling
from patchlab.store import schema

T = TypeVar("T")
_Rows = Sequence[Row[Any]]

# The tables whose rows belong to a boot, in the order of to_boot()'s arguments.
PARTS: tuple[Table, ...] = (
    schema.CHECKS,
    schema.SAMPLES,
    schema.UNMEASURED,
    schema.FINDINGS,
    schema.ADDED,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The JSON of runs.plan: what is fixed before the first boot."""

    baseline: str
    arms: tuple[str, ...]
    features: tuple[str, ...]
    sampling: Sampling
    provenance: Provenance
    checks: tuple[CheckInfo, ...]
    metrics: tuple[MetricInfo, ...]
    asked: tuple[Asked, ...] = ()
    kinds: tuple[BootKind, ...] = (BootKind.CHECK, BootKind.BENCH)
    ground: Mapping[str, str] = field(default_factory=dict)
    sensitivity: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: StoredRun) -> Plan:
        """That of a run which is stored already."""
        return cls(**{field.name: getattr(run, field.name) for field in fields(cls)})


def rule(result: RuleResult) -> dict[str, Any]:
    """The row of schema.RULES, but for its run."""
    return clean(
        {
            "variant": result.variant,
            "series": result.series,
            "revision": result.revision,
            "rule": result.rule,
            "ruling": result.ruling.value,
            "seen": result.seen,
            "remedy": result.remedy,
        }
    )


def to_rule(row: Row[Any]) -> RuleResult:
    return RuleResult(
        row.variant, row.series, row.revision, row.rule, Ruling(row.ruling), row.seen, row.remedy
    )


def boot(record: BootRecord) -> dict[str, Any]:
    """The row of schema.BOOTS, but for its run."""
    return clean(
        {
            "variant": record.variant,
            "image_key": record.image_key,
            "kind": record.kind.value,
            "clock": record.clock.value,
            "block": record.block,
            "order": record.order,
            "attempt": record.attempt,
            "outcome": record.outcome.value,
            "reason": record.reason,
            "seed": str(record.seed),
            "started": record.started,
            "seconds": record.seconds,
            "ready_seconds": record.ready_seconds,
            "argv": to_json(record.argv),
            "facts": to_json(record.facts),
            "console": zlib.compress(record.console.encode("utf-8", "surrogatepass")),
        }
    )


def of_boot(record: BootRecord) -> tuple[tuple[Table, list[dict[str, Any]]], ...]:
    """The rows of each of PARTS, but for their boot."""
    parts = (
        [_check(entry) for entry in record.checks],
        [_sample(entry) for entry in record.samples],
        [_unmeasured(entry) for entry in record.unmeasured],
        [_finding(entry) for entry in record.findings],
        [_added(entry) for entry in record.samples if entry.added is not None],
    )
    return tuple(zip(PARTS, parts, strict=True))


def _check(entry: CheckResult) -> dict[str, Any]:
    return clean(
        {
            "check": entry.id,
            "feature": entry.feature,
            "outcome": entry.outcome.value,
            "expected": entry.expected,
            "seen": entry.seen,
            "seconds": entry.seconds,
        }
    )


def _sample(entry: Sample) -> dict[str, Any]:
    return clean(
        {
            "metric": entry.metric,
            "feature": entry.feature,
            "index": entry.index,
            "value": entry.value,
            "warmup": entry.warmup,
            "idle": entry.idle,
        }
    )


def _added(entry: Sample) -> dict[str, Any]:
    named = {"metric": entry.metric, "feature": entry.feature, "index": entry.index}
    return clean({**named, "added": entry.added})


def _unmeasured(entry: MetricOutcome) -> dict[str, Any]:
    return clean(
        {
            "metric": entry.metric,
            "feature": entry.feature,
            "outcome": entry.outcome.value,
            "reason": entry.reason,
        }
    )


def _finding(entry: Finding) -> dict[str, Any]:
    return clean(
        {
            "kind": entry.kind,
            "title": entry.title,
            "line": entry.line,
            "fingerprint": entry.fingerprint,
            "excerpt": to_json(entry.excerpt),
            "known": entry.known,
        }
    )


def to_boot(
    row: Row[Any],
    checks: _Rows,
    samples: _Rows,
    unmeasured: _Rows,
    findings: _Rows,
    added: _Rows,
) -> BootRecord:
    more = {(r.feature, r.metric, r._mapping["index"]): r.added for r in added}
    return BootRecord(
        variant=row.variant,
        image_key=row.image_key,
        kind=BootKind(row.kind),
        clock=Clock(row.clock),
        block=row.block,
        order=row.order,
        attempt=row.attempt,
        outcome=Outcome(row.outcome),
        reason=row.reason,
        seed=int(row.seed),
        started=row.started,
        seconds=row.seconds,
        ready_seconds=row.ready_seconds,
        argv=from_json(row.argv, tuple[str, ...]),
        facts=from_json(row.facts, dict[str, str]),
        console=zlib.decompress(row.console).decode("utf-8", "surrogatepass"),
        checks=tuple(_to_check(r) for r in checks),
        samples=tuple(_to_sample(r, more) for r in samples),
        unmeasured=tuple(
            MetricOutcome(r.metric, r.feature, Outcome(r.outcome), r.reason) for r in unmeasured
        ),
        findings=tuple(_to_finding(r) for r in findings),
    )


def _to_check(row: Row[Any]) -> CheckResult:
    return CheckResult(
        row.check, row.feature, Outcome(row.outcome), row.expected, row.seen, row.seconds
    )


def _to_sample(row: Row[Any], added: Mapping[tuple[str, str, int], float]) -> Sample:
    value = math.nan if row.value is None else row.value
    index = row._mapping["index"]  # "index" is a method of the tuple that a Row is
    more = added.get((row.feature, row.metric, index))
    return Sample(row.metric, row.feature, index, value, row.warmup, row.idle, more)


def _to_finding(row: Row[Any]) -> Finding:
    return Finding(
        row.kind,
        row.title,
        row.line,
        row.fingerprint,
        from_json(row.excerpt, tuple[str, ...]),
        row.known,
    )


def clean(row: Mapping[str, Any]) -> dict[str, Any]:
    """Text that came from a guest may hold lone surrogates, which no UTF-8 file can."""
    return {key: _utf8(value) if isinstance(value, str) else value for key, value in row.items()}


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def to_json(value: object) -> str:
    """JSON of a model value; paths become text."""
    plain = msgspec.to_builtins(value, enc_hook=_encode)
    return msgspec.json.encode(_without_surrogates(plain)).decode("utf-8")


def from_json(text: str, kind: type[T]) -> T:
    """The value back. Raises msgspec.MsgspecError when the text is not of that kind."""
    return msgspec.json.decode(text, type=kind, dec_hook=_decode)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _utf8(value)
    if isinstance(value, Mapping):
        return {_utf8(str(key)): _without_surrogates(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(entry) for entry in value]
    return value


def _encode(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"no JSON for {type(value).__name__}")


def _decode(kind: type, value: Any) -> object:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(f"no {kind.__name__} from JSON")
