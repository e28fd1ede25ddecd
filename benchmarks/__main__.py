# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m benchmarks [NAME…]``: take the figures named, or all; print them; exit with 0.

A figure that cannot be taken says why, and one that misses its aim says by how much: neither
ends the bench. Each is kept in docs/evidence/speed.json as soon as it is taken, and shown in
docs/speed.md; with --quick both are left alone, and results/bench/ gets the JSON.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import page, record
from benchmarks.bench import LAB, REPOSITORY, Bench
from benchmarks.figures import FIGURES, Figure
from benchmarks.record import Found, Taken
from patchlab import config, host, proc
from patchlab.commands.ui import Terminal
from patchlab.errors import LabError
from patchlab.guests import kvm
from patchlab.paths import default_cache
from patchlab.progress import Progress
from tests.proving.desk import lab_commit

DOCS = REPOSITORY / "docs"
EVIDENCE = DOCS / "evidence" / "speed.json"
RESULTS = REPOSITORY / "results" / "bench"
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class _Wanted:
    names: tuple[str, ...]
    quick: bool
    resume: bool
    minutes: float


def main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    errors, out = Console(stderr=True), Console(width=None if sys.stdout.isatty() else 160)
    wanted = _Wanted(tuple(args.names) or tuple(FIGURES), args.quick, args.resume, args.minutes)
    try:
        file = RESULTS / "speed.json" if wanted.quick else EVIDENCE
        taken = record.load(file)
        if not args.page:
            with Terminal(errors) as progress:
                _take_all(wanted, file, taken, progress)
        if not wanted.quick:
            page.write(DOCS, taken)
        out.print(table({name: taken[name] for name in wanted.names if name in taken}))
    except LabError as error:
        errors.print(f"{error}\n{error.hint}".rstrip(), markup=False, highlight=False)
    except KeyboardInterrupt:
        proc.terminate_all()
        errors.print("interrupted; what was taken is kept: --resume goes on", markup=False)
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="How fast the lab itself is: docs/speed.md."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FIGURES))
    parser.add_argument("--quick", action="store_true", help="few and short; keeps no evidence")
    parser.add_argument(
        "--resume", action="store_true", help="only what this commit has not taken on this host"
    )
    parser.add_argument("--page", action="store_true", help="take nothing; write docs/speed.md")
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="of each cold build; 0 is to its end (5)"
    )
    parser.set_defaults(names=[])
    return parser


def _take_all(wanted: _Wanted, file: Path, taken: dict[str, Taken], progress: Progress) -> None:
    commit, facts = lab_commit(REPOSITORY), _host()
    bench = Bench(
        config.load(LAB), default_cache(), progress, RESULTS, wanted.quick, wanted.minutes
    )
    for name in wanted.names:
        if name not in FIGURES:
            progress.note(f"{name}: no such figure; there are {', '.join(FIGURES)}")
            continue
        before = taken.get(name)
        same = before is not None and (before.commit, before.host) == (commit, facts)
        if wanted.resume and same:
            progress.note(f"{name}: taken before")
            continue
        taken[name] = take(name, FIGURES[name], bench, commit, facts)
        record.store(file, [taken[one] for one in FIGURES if one in taken])


def take(name: str, figure: Figure, bench: Bench, commit: str, facts: dict[str, str]) -> Taken:
    """The figure, or why there is none: never an exception but KeyboardInterrupt."""
    bench.progress.note(f"{name}: {figure.title}")
    load, busy = os.getloadavg(), busy_share(0.1 if bench.quick else 1.0)
    when, begun = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    found, why = Found(()), ""
    try:
        found = figure.take(bench)
    except LabError as error:
        why = f"{error} {f'({error.hint})' if error.hint else ''}".strip()
        bench.progress.note(f"{name}: not measured: {why}")
    except Exception as error:
        why = f"a bug in the bench: {type(error).__name__}: {error}"
        bench.progress.note(f"{traceback.format_exc()}\n{name}: {why}")
    seconds = time.monotonic() - begun
    return Taken(name, found, why, when, seconds, commit, facts, load, busy, bench.quick)


def busy_share(seconds: float) -> float:
    """What others use of all cores just now, 0 to 1, by /proc/stat."""
    idle, total = _ticks()
    time.sleep(seconds)
    later_idle, later_total = _ticks()
    return 1 - (later_idle - idle) / max(later_total - total, 1)


def _ticks() -> tuple[int, int]:
    line = Path("/proc/stat").read_text().split("\n", 1)[0]
    fields = [int(word) for word in line.split()[1:9]]
    return fields[3] + fields[4], sum(fields)  # idle, iowait


def _host() -> dict[str, str]:
    try:
        return dict(host.facts()) | {"QEMU": kvm.qemu_version()}
    except LabError as error:
        return dict(host.facts()) | {"QEMU": str(error)}


def table(taken: dict[str, Taken]) -> Table:
    shown = Table("figure", "what", "taken", "aim", "", box=None, pad_edge=False)
    for name, one in taken.items():
        if one.unmeasured:
            shown.add_row(name, f"not measured: {one.unmeasured}", "", "", "")
        for index, row in enumerate(one.found.rows):
            what = row.what + (f" ({row.note})" if row.note else "")
            cells = (what, record.shown(row), record.aim(row), record.word(row))
            shown.add_row(name if index == 0 else "", *cells)
    return shown


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
