# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py report: a stored run again, as text, JSON or one HTML file; no guest needed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from patchlab import compare as comparing
from patchlab import levels
from patchlab.commands.desk import Desk
from patchlab.errors import LostInstrument
from patchlab.model import Outcome, StoredRun
from patchlab.report import html
from patchlab.store.results import Results
from patchlab.verdict import Comparison

HELP = "report a stored run (the newest without an ID)"
EXAMPLE = "runner.py report 3 --format html"
BAD = {Outcome.FAILED, Outcome.CRASHED, Outcome.TIMED_OUT, Outcome.SPLAT}
FORMATS = ("text", "json", "html")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", type=int, metavar="ID")
    parser.add_argument("--format", choices=FORMATS, default="text")


def run(args: argparse.Namespace, desk: Desk) -> int:
    with desk.results() as results:
        run_id = args.id or results.latest_run()
        if args.format == "html":
            desk.write(str(write_html(desk.results_folder, results.load_run(run_id))))
            return 0
        finish(desk, results, run_id, args.format, write_file=False)
        return 0


def finish(desk: Desk, results: Results, run_id: int, form: str, *, write_file: bool = True) -> int:
    """Print a stored run, write its HTML file, and give the exit code that it stands for."""
    stored = results.load_run(run_id)
    comparisons = comparing.compare_all(stored)
    desk.show(form, stored, comparisons)
    if write_file:
        desk.progress.note(f"report: {write_html(desk.results_folder, stored)}")
    return exit_code(stored, comparisons)


def write_html(folder: Path, stored: StoredRun) -> Path:
    """``report-NNNN.html`` for this run, and ``report.html`` for the newest written."""
    page = html.render(stored, comparing.compare_all(stored))
    file = folder / f"report-{stored.id:04d}.html"
    for path in (file, folder / "report.html"):
        new = path.with_suffix(".new")
        new.write_text(page, "utf-8")
        new.rename(path)
    return file


def exit_code(stored: StoredRun, comparisons: Sequence[Comparison]) -> int:
    """1 for a regression, a failed check or a dead kernel; 69 when something was lost; else 0."""
    boots = levels.settled(stored.boots)
    outcomes = {boot.outcome for boot in boots}
    outcomes |= {check.outcome for boot in boots for check in boot.checks}
    if outcomes & BAD or any(comparing.regressed(comparison) for comparison in comparisons):
        return 1
    return LostInstrument.exit_code if Outcome.LOST in outcomes or not boots else 0
