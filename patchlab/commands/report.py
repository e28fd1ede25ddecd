# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py report: a stored run again, as text, JSON or one HTML file; no guest needed."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path

from patchlab import config, scratch
from patchlab.commands.desk import Desk
from patchlab.errors import LostInstrument
from patchlab.record import Outcome, StoredRun
from patchlab.report import html
from patchlab.runs.run import page
from patchlab.store.results import Results
from patchlab.verdict import Comparison
from patchlab.verdicts import compare as comparing
from patchlab.verdicts import levels

HELP = "report a stored run (the newest without an ID, or the newest with a VARIANT)"
EXAMPLE = "runner.py report 3 --format html"
BAD = {Outcome.FAILED, Outcome.CRASHED, Outcome.TIMED_OUT, Outcome.SPLAT}
FORMATS = ("text", "json", "html")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", metavar="ID|VARIANT", help="a run, or one of its arms")
    parser.add_argument("--format", choices=FORMATS, default="text")


def run(args: argparse.Namespace, desk: Desk) -> int:
    with desk.results() as results:
        run_id = _run_id(args.id, desk, results)
        if args.format == "html":
            desk.write(str(write_html(desk.results_folder, results.load_run(run_id))))
            return 0
        finish(desk, results, run_id, args.format, write_file=False)
        return 0


def _run_id(text: str | None, desk: Desk, results: Results) -> int:
    """The run that was named: by its id, by one of its arms (the newest), or the newest."""
    if text is None or (text.isascii() and text.isdecimal()):
        return int(text or 0) or results.latest_run()
    stored = {arm for line in results.runs() for arm in line.arms}
    return results.latest_run(arms=[config.stored_name(desk.lab(), text, stored)])


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
    text = html.render(stored, comparing.compare_all(stored))
    file = page(folder, stored.id)
    # The run's own page comes last: a run without one was killed before its report was whole.
    for path in (folder / "report.html", file):
        scratch.write(path, text)
    return file


def exit_code(
    stored: StoredRun, comparisons: Sequence[Comparison], arms: Collection[str] = ()
) -> int:
    """1 for a regression, a failed check or a dead kernel; 69 when something was lost; else 0.

    Of the boots of ``arms``, or of all. A check that fails where the feature says that it does
    (compare.known()) is none of these.
    """
    counted = levels.settled(stored.boots)
    boots = [boot for boot in counted if not arms or boot.variant in arms]
    infos = {(info.feature, info.id): info for info in comparing.check_infos(stored)}
    outcomes = {boot.outcome for boot in boots}
    outcomes |= {
        check.outcome
        for boot in boots
        for check in boot.checks
        if not comparing.known(infos[check.feature, check.id], boot.variant, check.outcome)
    }
    if outcomes & BAD or any(comparing.regressed(comparison) for comparison in comparisons):
        return 1
    return LostInstrument.exit_code if Outcome.LOST in outcomes or not boots else 0
