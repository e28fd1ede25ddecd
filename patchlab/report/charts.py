# SPDX-License-Identifier: GPL-2.0-or-later
"""Inline SVG: the effects of comparisons, and the boots behind a level. No script, no style.

Colours are those of the page's style sheet, light and dark. None carries a meaning alone: a
verdict has a shape and its word, an arm its line and its name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from patchlab.report import words
from patchlab.verdict import Comparison, MetricComparison, Verdict
from patchlab.verdicts.levels import ArmLevel, ArmsRow

_ROW = 24
_LABELS, _PLOT, _FIGURES = 172, 438, 390  # columns of the forest plot, in SVG units
_EFFECT = 228  # of the last column; the rest is the verdict's
_APART = 46  # labels of ticks
_SHAPES = {
    Verdict.FASTER: "M0 -6 L6 5 L-6 5 Z",  # points up
    Verdict.SLOWER: "M0 6 L6 -5 L-6 -5 Z",  # points down
    Verdict.WITHIN_MARGIN: "M0 -6 L6 0 L0 6 L-6 0 Z",
    Verdict.EQUIVALENT: "M-4.5 -4.5 H4.5 V4.5 H-4.5 Z",
    Verdict.INCONCLUSIVE: "M-5 0 A5 5 0 1 0 5 0 A5 5 0 1 0 -5 0 Z",  # hollow
}


@dataclass(frozen=True, slots=True)
class _Axis:
    """asinh of a relative change: linear near zero, logarithmic far from it, signed."""

    linear: float
    reach: float

    def x(self, ratio: float) -> float:
        far = math.asinh(self.reach / self.linear)
        here = math.asinh(max(-self.reach, min(self.reach, ratio)) / self.linear)
        return _LABELS + _PLOT / 2 * (1 + here / far)

    def ticks(self) -> list[float]:
        powers = [10.0**k * s for k in range(-5, 2) for s in (1, -1)]
        shown = [p for p in powers if self.linear <= abs(p) <= self.reach]
        return sorted([0.0, *shown])


# ---------------------------------------------------------------- forest


def forest(comparisons: Sequence[Comparison]) -> Markup:
    """A group a comparison, a row a metric: change, interval, verdict; its margin as a band.

    One axis for all. "" when no metric has an effect.
    """
    drawn = [m for c in comparisons for m in c.metrics if m.ratio is not None]
    if not drawn:
        return Markup("")
    axis, top = _axis(drawn), 8.0
    bands: list[Markup] = []
    rows: list[Markup] = []
    for comparison in comparisons:
        rows.append(_group(comparison, top))
        for metric in comparison.metrics:
            top += _ROW
            bands.append(_band(axis, metric, top))
            rows.append(_forest_row(axis, metric, top))
        top += _ROW + 10
    said = "; ".join(
        f"{c.candidate} against {c.baseline}: {words.metric_sentence(c.metrics)}"
        for c in comparisons
    )
    return _svg(
        ("forest", "forest"),
        (_LABELS + _PLOT + _FIGURES, top + _ROW),
        "Change of each metric with its interval and margin",
        said,
        [*bands, _grid(axis, top), *rows],
    )


def legend() -> Markup:
    """What the shapes mean: one small picture and its word each."""
    picture = Markup(
        '<span class="row {slug}"><svg class="key" viewBox="-8 -8 16 16" aria-hidden="true">'
        '<path class="shape" d="{path}"/></svg>&thinsp;{word}</span>&ensp;'
    )
    return Markup("").join(
        picture.format(slug=_slug(verdict), path=path, word=verdict.value)
        for verdict, path in _SHAPES.items()
    )


def _svg(
    named: tuple[str, str], size: tuple[float, float], title: str, said: str, parts: list[Markup]
) -> Markup:
    """``named`` is the class and what the ids begin with; ``said`` is for who cannot see it."""
    return Markup(
        '<svg class="{kind}" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        'aria-labelledby="{id}-title" aria-describedby="{id}-desc">'
        '<title id="{id}-title">{title}</title><desc id="{id}-desc">{said}</desc>{parts}</svg>'
    ).format(
        kind=named[0],
        id=named[1],
        width=size[0],
        height=size[1],
        title=words.visible(title),
        said=words.visible(said),
        parts=Markup("").join(parts),
    )


def _axis(metrics: Sequence[MetricComparison]) -> _Axis:
    ends = [abs(x) for m in metrics for x in (m.ratio, m.low, m.high) if x is not None]
    linear = min(metric.margin for metric in metrics) or 0.001
    return _Axis(linear, max(*ends, 3 * linear) * 1.15)


def _grid(axis: _Axis, bottom: float) -> Markup:
    parts: list[Markup] = []
    labelled: list[float] = []
    for tick in sorted(axis.ticks(), key=abs):
        x = axis.x(tick)
        parts.append(
            Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(
                "tick" if tick else "zero", x, x, _ROW + 4, bottom - 6
            )
        )
        if all(abs(x - other) >= _APART for other in labelled):
            labelled.append(x)
            parts.append(
                Markup(
                    '<text class="label" x="{:.1f}" y="{}" text-anchor="middle">{}</text>'
                ).format(x, bottom + 10, _percent(tick) if tick else "0")
            )
    return Markup("").join(parts)


def _percent(tick: float) -> str:
    return f"{100 * tick:+g} %".replace("-", words.MINUS)


def _band(axis: _Axis, metric: MetricComparison, top: float) -> Markup:
    margin = math.log1p(metric.margin)
    low, high = axis.x(math.expm1(-margin)), axis.x(math.expm1(margin))
    return Markup('<rect class="band" x="{:.1f}" width="{:.1f}" y="{:.1f}" height="{}"/>').format(
        low, high - low, top - 4, _ROW
    )


def _group(comparison: Comparison, top: float) -> Markup:
    return Markup('<text class="group" x="0" y="{:.1f}">{}</text>').format(
        top + _ROW / 2, words.visible(f"{comparison.candidate} against {comparison.baseline}")
    )


def _forest_row(axis: _Axis, metric: MetricComparison, top: float) -> Markup:
    middle = top + _ROW / 2 - 4
    figures = " ".join(filter(None, (words.effect(metric), _bracket(words.interval(metric)))))
    star = "*" if metric.metric.primary else ""
    right = _LABELS + _PLOT + 14
    return Markup(
        '<g class="row {kind}"><title>{name}: {figures}, {verdict}</title>'
        '<text class="name" x="{label}" y="{base:.1f}" text-anchor="end">{name}{star}</text>'
        '{mark}<text class="figure" x="{right}" y="{base:.1f}">{figures}</text>'
        '<text class="word" x="{far}" y="{base:.1f}">{word}</text></g>'
    ).format(
        kind=_slug(metric.verdict),
        name=words.visible(metric.metric.id),
        star=star,
        verdict=words.verdict(metric),
        word=metric.verdict.value,
        figures=figures,
        label=_LABELS - 12,
        base=middle + 4,
        mark=_mark(axis, metric, middle),
        right=right,
        far=right + _EFFECT,
    )


def _mark(axis: _Axis, metric: MetricComparison, middle: float) -> Markup:
    """The interval and the verdict's shape; nothing without an effect."""
    if metric.ratio is None:
        return Markup("")
    low, high = _or(metric.low, metric.ratio), _or(metric.high, metric.ratio)
    return Markup(
        '<line class="whisker" x1="{x0:.1f}" x2="{x1:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        '<path class="shape" transform="translate({x:.1f} {y:.1f})" d="{path}"/>'
    ).format(
        x0=axis.x(low),
        x1=axis.x(high),
        x=axis.x(metric.ratio),
        y=middle,
        path=_SHAPES.get(metric.verdict, _SHAPES[Verdict.INCONCLUSIVE]),
    )


def _slug(verdict: Verdict) -> str:
    return verdict.value.replace(" ", "-")


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _bracket(text: str) -> str:
    return f"({text})" if text else ""


# ---------------------------------------------------------------- strips

_NAMES, _SPAN, _SPREADS = 86, 230, 72  # columns of a strip
_LINE, _BLOCKS = 38, 18  # height of an arm's line, and of its blocks in it
_SHORT = 13  # characters of an arm's name


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a boot's dot is: its arm's line, its block in the line, its value across."""

    low: float
    high: float
    last: int  # block

    def x(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return _NAMES + 8 + (_SPAN - 16) * share

    def y(self, arm: int, block: int) -> float:
        share = block / self.last - 0.5 if self.last else 0.0
        return _LINE * arm + _LINE / 2 + _BLOCKS * share


def strip(row: ArmsRow, number: int) -> Markup:
    """One line an arm, one dot a boot; the first block is at the line's top, the last below.

    Boots of a block are joined from arm to arm. ``number`` is the strip's own in the page.
    "" when no arm has a boot.
    """
    arms = [arm for arm in row.levels if arm.boots]
    if not arms:
        return Markup("")
    values = [value for arm in arms for _, value in arm.boots]
    blocks = [block for arm in arms for block, _ in arm.boots]
    place = _Place(min(values), max(values), max(blocks))
    height = _LINE * len(arms) + 16
    lines = [_strip_line(place, arm, row.levels.index(arm), i) for i, arm in enumerate(arms)]
    pairs = [_pairs(place, i, arms[i], arms[i + 1]) for i in range(len(arms) - 1)]
    ends = Markup(
        '<text class="label" x="{x0}" y="{y}">{low}</text>'
        '<text class="label" x="{x1}" y="{y}" text-anchor="end">{high}</text>'
    ).format(
        y=height - 3,
        x0=_NAMES,
        x1=_NAMES + _SPAN,
        low=words.number(place.low, 6),
        high=words.number(place.high, 6),
    )
    return _svg(
        ("strip", f"strip-{number}"),
        (_NAMES + _SPAN + _SPREADS, height),
        f"{row.metric.id}: every boot, in {row.unit}",
        "; ".join(_said(arm) for arm in arms),
        [*pairs, *lines, ends],
    )


def _said(arm: ArmLevel) -> str:
    values = [value for _, value in arm.boots]
    ends = f"{words.number(min(values), 6)} to {words.number(max(values), 6)}"
    return f"{arm.variant}: {words.plural(len(values), 'boot')} from {ends}"


def _pairs(place: _Place, upper: int, one: ArmLevel, other: ArmLevel) -> Markup:
    """Lines between the boots of the same block on two arms, one above the other."""
    below = dict(other.boots)
    return Markup("").join(
        Markup('<line class="pair" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
            place.x(value),
            place.y(upper, block),
            place.x(below[block]),
            place.y(upper + 1, block),
        )
        for block, value in one.boots
        if block in below
    )


def _strip_line(place: _Place, arm: ArmLevel, colour: int, line: int) -> Markup:
    middle = _LINE * line + _LINE / 2
    name = words.visible(arm.variant)
    head = Markup(
        '<g><title>{name}</title><text class="name" x="0" y="{y:.1f}">{short}</text></g>'
        '<text class="label" x="{x:.1f}" y="{y:.1f}" text-anchor="end">{spread}</text>'
    ).format(
        name=name,
        short=_short(name),
        spread=_spread(arm),
        x=_NAMES + _SPAN + _SPREADS,
        y=middle + 4,
    )
    dots = [
        Markup(
            '<circle class="dot arm{}" cx="{:.1f}" cy="{:.1f}" r="3.6">'
            "<title>{}, block {}: {}</title></circle>"
        ).format(
            min(colour, 5),
            place.x(value),
            place.y(line, block),
            name,
            block,
            words.number(value, 6),
        )
        for block, value in arm.boots
    ]
    return head + Markup("").join(dots)


def _short(name: str) -> str:
    """``control`` of fuse-writable-mmap@control; a stack of patches is cut."""
    last = name.rpartition("@")[2] if " + " not in name else name
    return last if len(last) <= _SHORT else f"{last[: _SHORT - 1]}…"


def _spread(arm: ArmLevel) -> str:
    """Half the distance of the extremes, as in the table of levels."""
    values = [value for _, value in arm.boots]
    if len(values) < 2 or not arm.level:
        return ""
    half = 100 * (max(values) - min(values)) / 2 / arm.level
    return "< 0.001 %" if half < 0.001 else f"±{half:.2g} %"
