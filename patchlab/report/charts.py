# SPDX-License-Identifier: GPL-2.0-or-later
"""Inline SVG: the effects of a comparison, and the boots behind a level. No script, no style."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from patchlab.report import words
from patchlab.verdict import MetricComparison
from patchlab.verdicts.levels import ArmsRow

_ROW = 26
_LABELS, _PLOT, _FIGURES = 190, 560, 250  # columns of the forest plot, in SVG units
_STRIP_WIDTH, _STRIP_ROW, _STRIP_SIDE = 340, 24, 20


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


def forest(metrics: Sequence[MetricComparison]) -> Markup:
    """One row a metric: its change, the 95 % interval, and its margin as a band."""
    drawn = [metric for metric in metrics if metric.ratio is not None]
    if not drawn:
        return Markup("")
    axis = _axis(drawn)
    height = _ROW * (len(drawn) + 1) + 14
    width = _LABELS + _PLOT + _FIGURES
    rows = [_forest_row(axis, metric, _ROW * i + 8) for i, metric in enumerate(drawn)]
    return Markup(
        '<svg class="forest" viewBox="0 0 {} {}" role="img" aria-label="change of each metric">'
        "{}{}</svg>"
    ).format(width, height, _grid(axis, height), Markup("").join(rows))


def _axis(metrics: Sequence[MetricComparison]) -> _Axis:
    ends = [abs(x) for m in metrics for x in (m.ratio, m.low, m.high) if x is not None]
    linear = min(metric.metric.margin for metric in metrics) or 0.001
    return _Axis(linear, max(*ends, 3 * linear) * 1.15)


def _grid(axis: _Axis, height: float) -> Markup:
    bottom = height - _ROW - 2
    lines = []
    for tick in axis.ticks():
        x = f"{axis.x(tick):.1f}"
        kind = "zero" if tick == 0 else "tick"
        label = "0" if tick == 0 else f"{100 * tick:+g} %".replace("-", words.MINUS)
        lines.append(
            Markup(
                '<line class="{}" x1="{}" x2="{}" y1="4" y2="{}"/>'
                '<text class="label" x="{}" y="{}" text-anchor="middle">{}</text>'
            ).format(kind, x, x, bottom, x, bottom + 17, label)
        )
    return Markup("").join(lines)


def _forest_row(axis: _Axis, metric: MetricComparison, top: float) -> Markup:
    assert metric.ratio is not None
    middle = top + _ROW / 2 - 4
    low, high = _or(metric.low, metric.ratio), _or(metric.high, metric.ratio)
    margin = math.log1p(metric.metric.margin)
    band = (axis.x(math.expm1(-margin)), axis.x(math.expm1(margin)))
    figures = " ".join(filter(None, (words.effect(metric), _bracket(words.interval(metric)))))
    return Markup(
        '<g class="row {kind}"><title>{name}: {figures}, {verdict}</title>'
        '<rect class="band" x="{b0:.1f}" width="{bw:.1f}" y="{bt:.1f}" height="{bh}"/>'
        '<text class="name" x="{label}" y="{base:.1f}" text-anchor="end">{name}</text>'
        '<line class="whisker" x1="{x0:.1f}" x2="{x1:.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>'
        '<circle class="dot" cx="{x:.1f}" cy="{middle:.1f}" r="4.5"/>'
        '<text class="figure" x="{right}" y="{base:.1f}">{figures}</text></g>'
    ).format(
        kind=metric.verdict.value.replace(" ", "-"),
        name=words.visible(metric.metric.id),
        verdict=words.verdict(metric),
        figures=figures,
        b0=band[0],
        bw=band[1] - band[0],
        bt=middle - 9,
        bh=18,
        label=_LABELS - 12,
        base=middle + 4,
        x0=axis.x(low),
        x1=axis.x(high),
        x=axis.x(metric.ratio),
        middle=middle,
        right=_LABELS + _PLOT + 14,
    )


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _bracket(text: str) -> str:
    return f"({text})" if text else ""


def strip(row: ArmsRow) -> Markup:
    """One line an arm, one dot a boot, from the lowest to the highest boot of the metric."""
    values = [value for arm in row.levels for _, value in arm.boots]
    if not values:
        return Markup("")
    low, high = min(values), max(values)
    height = _STRIP_ROW * len(row.levels) + 18
    lines = [
        _strip_line(arm.boots, low, high, _STRIP_ROW * i + 12, i)
        for i, arm in enumerate(row.levels)
    ]
    ends = Markup(
        '<text class="label" x="0" y="{y}">{low}</text>'
        '<text class="label" x="{x}" y="{y}" text-anchor="end">{high}</text>'
    ).format(y=height - 3, low=words.number(low, 6), high=words.number(high, 6), x=_STRIP_WIDTH)
    return Markup(
        '<svg class="strip" viewBox="0 0 {} {}" role="img" aria-label="boots">{}{}</svg>'
    ).format(_STRIP_WIDTH, height, Markup("").join(lines), ends)


def _strip_line(
    boots: Iterable[tuple[int, float]], low: float, high: float, y: float, arm: int
) -> Markup:
    span = _STRIP_WIDTH - 2 * _STRIP_SIDE
    line = Markup('<line class="tick" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
        _STRIP_SIDE, _STRIP_SIDE + span, y, y
    )
    dots = [
        Markup(
            '<circle class="dot arm{}" cx="{:.1f}" cy="{}" r="4">'
            "<title>block {}: {}</title></circle>"
        ).format(
            min(arm, 5),
            _STRIP_SIDE + span * ((value - low) / (high - low) if high > low else 0.5),
            y,
            block,
            words.number(value, 6),
        )
        for block, value in boots
    ]
    return line + Markup("").join(dots)
