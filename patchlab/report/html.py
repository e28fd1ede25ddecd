# SPDX-License-Identifier: GPL-2.0-or-later
"""A stored run as one HTML file that opens from disk, asks for nothing and runs no script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from patchlab import proc
from patchlab.record import BootRecord, CheckInfo, CheckResult, Outcome, StoredRun
from patchlab.report import calibrated, charts, words
from patchlab.reviews import claims, ledger
from patchlab.verdict import Comparison
from patchlab.verdicts import compare, levels, operations

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One check across all arms, the baseline first."""

    info: CheckInfo
    results: tuple[CheckResult, ...]
    changes: tuple[str, ...]  # change_word() of each arm; "" for the baseline


@dataclass(frozen=True, slots=True)
class Console:
    name: str
    boot: BootRecord


def render(run: StoredRun, comparisons: Sequence[Comparison]) -> str:
    """The whole page. Text from the guest is escaped, and its control characters are shown."""
    css = (_TEMPLATES / "report.css").read_text("utf-8")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            run=run,
            comparisons=comparisons,
            css=Markup(css),  # ours, and named by its hash in the page's policy
            policy=_policy(css),
            headlines=words.headlines(run, comparisons),
            alerts=words.alerts(run),
            calibrated=calibrated.sentence(run),
            arms=levels.ordered_arms(run),
            ledgers=ledger.ledgers(run),
            claims=claims.tables(run),
            operations=operations.table(run),
            checks=_check_rows(run, comparisons),
            rows=levels.arms_table(run),
            features=tuple(dict.fromkeys(info.feature for info in compare.check_infos(run))),
            longest=max(run.stages.values(), default=0.0),
            consoles=_consoles(run),
            argvs=_argvs(run),
        )
    )


def _policy(css: str) -> str:
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.globals.update(words=words, charts=charts, paste=proc.paste, known=compare.known)
    environment.filters["slug"] = lambda text: str(text).replace(" ", "-")
    return environment


def _shown(value: object) -> object:
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return words.visible(value)


def _check_rows(run: StoredRun, comparisons: Sequence[Comparison]) -> tuple[CheckRow, ...]:
    arms = levels.ordered_arms(run)
    changes = {
        (c.candidate, check.info.feature, check.id): compare.change_word(check)
        for c in comparisons
        for check in c.checks
    }
    return tuple(
        CheckRow(
            info,
            tuple(compare.check_result(run, arm, info) for arm in arms),
            tuple(changes.get((arm, info.feature, info.id), "") for arm in arms),
        )
        for info in compare.check_infos(run)
    )


def _consoles(run: StoredRun) -> tuple[Console, ...]:
    """Those that need to be read come first."""
    named = [Console(f"{boot.variant}, {words.place(boot)}", boot) for boot in run.boots]
    return tuple(sorted(named, key=lambda console: console.boot.outcome is Outcome.PASSED))


def _argvs(run: StoredRun) -> tuple[tuple[str, str], ...]:
    """The first QEMU command line of each kind of boot on each arm."""
    first: dict[str, str] = {}
    for boot in run.boots:
        if boot.argv:
            first.setdefault(f"{boot.kind} boot of {boot.variant}", proc.paste(boot.argv))
    return tuple(first.items())
