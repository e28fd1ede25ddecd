# SPDX-License-Identifier: GPL-2.0-or-later
"""A comparison for a cover letter: plain ASCII, 72 columns, the method in one footnote."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from patchlab.record import Clock, Outcome, StoredRun
from patchlab.report import words
from patchlab.reviews import ledger
from patchlab.reviews.ledger import Column, Ledger, Standing
from patchlab.verdict import Comparison, MetricComparison, Verdict
from patchlab.verdicts import compare, looks

WIDTH = 72
_WHAT, _LEVEL, _CHANGE = 24, 11, 9  # columns; what is left is the verdict's
_NOTHING = 1e-5  # of the level: no digit of it is shown
_ASCII = {"−": "-", "–": "-", "±": "+-", "…": "..", "×": "x", "·": "-", "“": '"', "”": '"'}
_METHOD = {
    Clock.ICOUNT: "guest instructions under QEMU's TCG (-icount): path length, not caches, "
    "stalls or parallelism",
    Clock.WALL: "wall time under KVM",
    Clock.TCG: "wall time under TCG: not comparable",
}


def render(run: StoredRun, comparison: Comparison) -> str:
    """The comparison as it goes into a mail. No line is longer than 72 columns."""
    before, after = words.short((comparison.baseline, comparison.candidate))
    parts = [
        _wrap(f"{after} against {before}, {comparison.clock} [1]"),
        *([""] if comparison.metrics else []),
        *_metrics(comparison, before, after),
        "",
        *_checks(comparison, before, after),
        *_reviews(run, comparison),
        "",
        *_footnote(run, comparison),
    ]
    return "\n".join(_plain(part) for part in parts) + "\n"


def _plain(text: str) -> str:
    flat = "".join(_ASCII.get(one, one) for one in words.visible(text))
    return flat.encode("ascii", "backslashreplace").decode()


def _wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(
        _plain(text), WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=True
    )


# ---------------------------------------------------------------- metrics


def _metrics(comparison: Comparison, before: str, after: str) -> Iterable[str]:
    shown = [one for one in comparison.metrics if one.verdict is not Verdict.NOT_COMPARABLE]
    if shown:
        yield _line("", _cut(before, _LEVEL - 1), _cut(after, _LEVEL - 1), "change", "")
        yield "-" * WIDTH
    for metric in shown:
        yield from _metric(metric)
    left = [one.metric.id for one in comparison.metrics if one not in shown]
    if left:
        yield _wrap(f"not comparable: {', '.join(left)}", "  ")


def _metric(metric: MetricComparison) -> Iterable[str]:
    what = metric.metric.operation or metric.metric.id
    name = ", ".join(filter(None, (what, metric.metric.subject)))
    values = (words.number(metric.baseline), words.number(metric.candidate))
    lines = textwrap.wrap(_plain(f"{name}, a {metric.metric.unit}"), _WHAT - 1)
    yield _line(lines[0], *values, _difference(metric), _said(metric))
    yield from (f"  {line}" for line in lines[1:])


def _difference(metric: MetricComparison) -> str:
    small = metric.change is not None and metric.baseline is not None
    if small and abs(metric.change or 0.0) < _NOTHING * (metric.baseline or 0.0):
        return "0"
    return words.change(metric.change)


def _said(metric: MetricComparison) -> str:
    if metric.verdict is Verdict.EQUIVALENT:
        return f"same +-{100 * metric.margin:.2g}%"
    if metric.ratio is None or metric.low is None or metric.high is None:
        return metric.verdict.value
    places = words.places_for(metric.low, metric.high)
    half = (metric.high - metric.low) / 2
    text = f"{100 * metric.ratio:+.{places}f}% +-{100 * half:.{places}f}"
    return f"{text} ?" if metric.verdict is Verdict.INCONCLUSIVE else text


def _line(what: str, before: str, after: str, change: str, said: str) -> str:
    columns = (_plain(one) for one in (before, after, change))
    widths = (_LEVEL, _LEVEL, _CHANGE)
    numbers = "".join(f"{one:>{width}}" for one, width in zip(columns, widths, strict=True))
    return f"{what:<{_WHAT}}{numbers} {said}".rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"..{text[2 - width :]}"


# ---------------------------------------------------------------- checks and demands


def _checks(comparison: Comparison, before: str, after: str) -> Iterable[str]:
    groups: dict[str, list[str]] = {}
    for check in comparison.checks:
        word = compare.change_word(check)
        if word == "same" and check.candidate:
            word = _SAME.get(check.candidate.outcome, f"{check.candidate.outcome} on both")
        groups.setdefault(word, []).append(check.id)
    if not groups:
        return
    yield f"Checks ({len(comparison.checks)}), {after} against {before}:"
    for word, ids in groups.items():
        listed = str(len(ids)) if word == _SAME[Outcome.PASSED] else " ".join(ids)
        yield _wrap(f"  {word + ':':<21}{listed}", " " * 23)
    if not any(check.regression for check in comparison.checks):
        yield "  regressions:         none"


_SAME = {
    Outcome.PASSED: "pass on both",
    Outcome.FAILED: "fail on both",
    Outcome.UNSUPPORTED: "unsupported on both",
}


def _reviews(run: StoredRun, comparison: Comparison) -> Iterable[str]:
    for one in ledger.ledgers(run):
        columns = {column.arm: column for column in one.columns}
        if column := columns.get(comparison.candidate):
            yield ""
            yield from _review(one, column)


def _review(one: Ledger, column: Column) -> Iterable[str]:
    place = one.columns.index(column)
    stands: dict[Standing, list[str]] = {}
    for row in one.rows:
        stands.setdefault(row.entries[place].standing, []).append(row.demand.id)
    yield _wrap(f"Demands of the reviews of {one.series}, {column.label}:")
    for standing in Standing:
        if found := stands.get(standing):
            yield _wrap(f"  {standing + ':':<21}{' '.join(found)}", " " * 23)


# ---------------------------------------------------------------- the method


def _footnote(run: StoredRun, comparison: Comparison) -> Sequence[str]:
    release = {image.release for image in run.images.values()}
    stands_on = f"Linux {', '.join(sorted(release))}; " if release else ""
    text = (
        f"[1] {_METHOD[comparison.clock]}. {stands_on}{words.plural(looks.seen(run), 'block')}"
        " of one boot an arm in random order, one number a boot; paired by block, t interval of"
        f" {words.confidence(comparison)} on log ratios, p adjusted (Holm, Benjamini-Hochberg);"
        ' "same" is two one-sided tests against the margin; ? is inconclusive.'
        f"{_planned(run)}"
        f" patchlab run {run.id}, {run.started[:10]}, lab {run.provenance.lab_commit}."
    )
    return [_wrap(text, "    ")]


def _planned(run: StoredRun) -> str:
    if not run.sampling.looks:
        return ""
    planned = ", ".join(map(str, run.sampling.looks))
    asked = looks.threshold(run.sampling.looks)
    return f" Looks planned after {planned} blocks, p < {asked:.4f} at each (Pocock)."
