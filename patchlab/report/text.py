# SPDX-License-Identifier: GPL-2.0-or-later
"""A stored run for a terminal: rich renderables, or a plain string of 100 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from patchlab.record import CheckInfo, CheckResult, Outcome, StoredRun
from patchlab.report import calibrated, plain, words
from patchlab.reviews import claims, ledger
from patchlab.reviews.claims import Claims
from patchlab.reviews.ledger import Entry, Ledger, Standing
from patchlab.verdict import Comparison, MetricComparison, Verdict
from patchlab.verdicts import compare, levels, operations
from patchlab.verdicts.operations import Cell, OperationTable

_OUTCOME = {
    Outcome.PASSED: "green",
    Outcome.FAILED: "bold red",
    Outcome.UNSUPPORTED: "yellow",
    Outcome.SPLAT: "bold red",
    Outcome.CRASHED: "bold red",
    Outcome.TIMED_OUT: "bold red",
    Outcome.LOST: "magenta",
    Outcome.SKIPPED: "cyan",
    Outcome.NOT_RUN: "magenta",
}
_VERDICT = {
    Verdict.FASTER: "green",
    Verdict.SLOWER: "bold red",
    Verdict.GONE: "yellow",
    Verdict.NEW: "cyan",
    Verdict.INCONCLUSIVE: "magenta",
    Verdict.NOT_COMPARABLE: "magenta",
}
_STANDING = {
    Standing.MET: "green",
    Standing.ANSWERED: "cyan",
    Standing.OPEN: "bold red",
    Standing.MOOT: "yellow",
    Standing.UNDECIDED: "magenta",
}
_WHY = 300  # characters of what decided a demand; the HTML report and the JSON have all


def render(run: StoredRun, comparisons: Sequence[Comparison], width: int = plain.WIDTH) -> str:
    """Plain text without colours, at most ``width`` columns wide."""
    return plain.render(renderables(run, comparisons), width)


def renderables(run: StoredRun, comparisons: Sequence[Comparison]) -> list[RenderableType]:
    """What a command prints, one part after the other; all of it is Text, never markup."""
    parts: list[RenderableType] = [_head(run)]
    parts += [Text(line, style="bold") for line in words.headlines(run, comparisons)]
    parts += [Text(f"! {line}", style="bold red") for line in words.alerts(run)]
    if comparisons and run.metrics:
        parts.append(Text(f"{calibrated.sentence(run)}\n"))
    for one in ledger.ledgers(run):
        parts += _ledger(one)
    for told in claims.tables(run):
        parts += _claims(told)
    if table := operations.table(run):
        parts.append(_operations(run, table))
    parts += _checks(run)
    for comparison in comparisons:
        parts += _metrics(comparison)
        parts += _notes(comparison)
    if not comparisons and run.metrics:
        parts.append(_levels(run))
    parts.append(_stages(run))
    return parts


def _head(run: StoredRun) -> Text:
    plan = words.blocks(run) if run.sampling.looks else f"{words.blocks(run)} planned"
    return Text(
        f"run {run.id} · {run.name} · {run.title}\n"
        f"{run.started} · clock {run.clock} · {plan} · seed {run.sampling.seed}\n"
    )


def _table(title: str, *columns: str, caption: str = "") -> Table:
    table = Table(box=SIMPLE_HEAD, title=Text(title), title_justify="left", pad_edge=False)
    table.title_style = table.caption_style = ""
    if caption:
        table.caption, table.caption_justify = Text(caption), "left"
    for column in columns:
        table.add_column(Text(column))
    return table


# ---------------------------------------------------------------- review ledger


def _ledger(one: Ledger) -> Iterable[RenderableType]:
    title = f"Review ledger: {words.visible(one.title)}"
    table = _table(title, "demand", *(column.label for column in one.columns), "who")
    details: list[tuple[str, str]] = []
    for row in one.rows:
        cells = [Text(e.standing.value, style=_STANDING[e.standing]) for e in row.entries]
        who = f"{row.demand.who}, {row.demand.date}"
        table.add_row(Text(words.visible(row.demand.id)), *cells, Text(words.visible(who)))
        details += [
            (_where(row.demand.id, column.label, entry), _why(entry))
            for column, entry in zip(one.columns, row.entries, strict=True)
            if entry.standing is not Standing.MET
        ]
    table.columns[0].overflow = "fold"
    yield table
    yield from _lines(words.together(details))


def _claims(one: Claims) -> Iterable[RenderableType]:
    title = f"Claimed, and seen here: {words.visible(one.title)}"
    table = _table(title, "claim", *(column.label for column in one.columns), "who")
    details: list[tuple[str, str]] = []
    for row in one.rows:
        who = f"{row.claim.who}, {row.claim.date}"
        cells = [Text(seen.standing.value) for seen in row.cells]
        table.add_row(Text(words.visible(row.claim.claim)), *cells, Text(words.visible(who)))
        details += [
            (f"{words.visible(row.claim.id)} on {column.label}", words.visible(seen.text))
            for column, seen in zip(one.columns, row.cells, strict=True)
        ]
    table.columns[0].overflow = "fold"
    yield table
    yield from _lines(words.together(details))


def _where(demand: str, label: str, entry: Entry) -> str:
    return f"{words.visible(demand)} {entry.standing} on {label}"


def _why(entry: Entry) -> str:
    said = " ".join(words.visible(entry.why).split())
    return said if len(said) <= _WHY else f"{said[:_WHY]}…"


# ---------------------------------------------------------------- levels by operation


def _operations(run: StoredRun, table: OperationTable) -> Table:
    comparators = [
        f"{subject}\non {source}" if source else subject
        for subject, source in zip(table.subjects, table.sources, strict=True)
    ]
    caption = f"Clock {words.CLOCKS[run.clock]} ± is half the distance of the extremes."
    arms = words.short(table.arms)
    shown = _table("Levels", "operation", *arms, *comparators, caption=caption)
    for column in shown.columns[1:]:
        column.justify = "right"
    for row in table.rows:
        head = Text(f"{words.visible(row.operation)}\n  {words.visible(row.unit)}")
        shown.add_row(head, *(Text(_cell(cell)) for cell in row.cells))
    return shown


def _cell(cell: Cell) -> str:
    if cell.level is None:
        return words.visible(cell.reason)
    return f"{words.number(cell.level)}\n{words.spread(cell).partition(',')[0]}"


# ---------------------------------------------------------------- checks


def _checks(run: StoredRun) -> Iterable[RenderableType]:
    infos = compare.check_infos(run)
    if not infos:
        return
    arms = levels.ordered_arms(run)
    table = _table("Checks", "check", *arms, "what it asserts")
    details: list[tuple[str, str]] = []
    for info in infos:
        results = [compare.check_result(run, arm, info) for arm in arms]
        cells = [Text(r.outcome.value, style=_OUTCOME[r.outcome]) for r in results]
        table.add_row(Text(words.visible(info.id)), *cells, Text(words.visible(info.sentence)))
        details += [
            (words.visible(info.id), _seen(info, arm, result))
            for arm, result in zip(arms, results, strict=True)
            if result.outcome is not Outcome.PASSED
        ]
    yield table
    yield from _lines(words.together(details))


def _seen(info: CheckInfo, arm: str, result: CheckResult) -> str:
    said = words.visible(result.seen) or "nothing was said"
    known = ", as it is known to" if compare.known(info, arm, result.outcome) else ""
    return f"{result.outcome} on {arm}{known}: {said}"


def _lines(lines: Iterable[str]) -> Iterable[RenderableType]:
    for line in lines:
        yield Padding(Text(f"· {line}"), (0, 0, 0, 2))


# ---------------------------------------------------------------- metrics


def _metrics(comparison: Comparison) -> Iterable[RenderableType]:
    if not comparison.metrics:
        yield Text(f"\n{comparison.candidate} against {comparison.baseline}: no metrics.")
        return
    table = _table(
        f"{comparison.candidate} against {comparison.baseline}",
        "metric",
        *("base", "candidate", "change"),
        f"% ({words.confidence(comparison)} interval)",
        "verdict",
        "p adj.",
        caption=f"* primary · clock {words.CLOCKS[comparison.clock]}",
    )
    # An id that is cut off cannot be looked up.
    table.columns[0].overflow = "fold"
    for column in table.columns[1:5]:
        column.justify = "right"
    for metric in comparison.metrics:
        table.add_row(*_metric(metric))
    yield table
    reasons = [
        (m.metric.id, f"{m.verdict}: {words.visible(m.reason)}")
        for m in comparison.metrics
        if m.reason
    ]
    yield from _lines(words.together(reasons))


def _metric(metric: MetricComparison) -> list[Text]:
    star = "*" if metric.metric.primary else ""
    return [
        Text(f"{metric.metric.id}{star}\n  a {metric.metric.unit}"),
        Text(words.number(metric.baseline)),
        Text(words.number(metric.candidate)),
        Text(words.change(metric.change)),
        Text(f"{words.effect(metric)}\n{words.interval(metric)}".rstrip()),
        Text(words.verdict(metric), style=_VERDICT.get(metric.verdict, "")),
        Text(words.p_value(metric.p_adjusted)),
    ]


def _levels(run: StoredRun) -> Table:
    arms = levels.ordered_arms(run)
    caption = f"Clock {words.CLOCKS[run.clock]}"
    table = _table("Metrics", "metric", "unit", *arms, caption=caption)
    for row in levels.arms_table(run):
        shown = [words.number(a.level) if a.level else words.visible(a.reason) for a in row.levels]
        table.add_row(*(Text(cell) for cell in (row.metric.id, row.unit, *shown)))
    return table


def _notes(comparison: Comparison) -> Iterable[RenderableType]:
    if comparison.notes:
        yield Text("\nNotes")
    yield from _lines(words.visible(note) for note in comparison.notes)


def _stages(run: StoredRun) -> Text:
    spent = " · ".join(f"{stage} {words.duration(s)}" for stage, s in run.stages.items())
    return Text(f"\n{words.wall_clock(run)}{': ' if spent else ''}{spent}")
