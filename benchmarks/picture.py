# SPDX-License-Identifier: GPL-2.0-or-later
"""A timeline as one SVG file: no script, no font and no address of anyone's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from benchmarks.record import Bar

_WIDTH, _LEFT, _LANE, _TOP = 900, 70, 34, 30
_PLOT = _WIDTH - _LEFT - 20
# Fills that are told apart without colour too: each next one is darker or lighter.
KINDS = {
    "rest": ("#c9c9c9", "the lab itself"),
    "build": ("#8a5a00", "build"),
    "coming up": ("#9cc3e6", "a guest comes up"),
    "measuring": ("#1f5f99", "a guest is measured and goes off"),
}
_OTHER = ("#e6e6e6", "other stages")
_LETTER = 7  # width, about
_TICKS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600)


def timeline(bars: Sequence[Bar], aim: float) -> Markup:
    """Lane 0 is the command's stages; each further lane holds guests. ``aim`` is a line."""
    lanes = max((bar.lane for bar in bars), default=0) + 1
    end = max([bar.end for bar in bars] + [aim]) * 1.02
    bottom = _TOP + lanes * _LANE
    parts = [
        *_grid(end, bottom),
        *(_bar(bar, end) for bar in bars if bar.end > bar.begin),
        *(_written(bar, end) for bar in bars if bar.lane == 0),
        *(_name(lane) for lane in range(lanes)),
        _aim(aim, end, bottom),
        *_legend(bottom + 34),
    ]
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" role="img" '
        'aria-label="where the time from an edit to its verdict goes" '
        'font-family="sans-serif" font-size="12">'
        '<rect width="{w}" height="{h}" fill="#ffffff"/>{parts}</svg>\n'
    ).format(w=_WIDTH, h=bottom + 60, parts=Markup("\n").join(parts))


def _x(seconds: float, end: float) -> float:
    return _LEFT + _PLOT * seconds / end


def _grid(end: float, bottom: int) -> list[Markup]:
    step = next((tick for tick in _TICKS if end / tick <= 12), 1200)
    lines = []
    for second in range(0, int(end) + 1, step):
        x = f"{_x(second, end):.1f}"
        lines.append(
            Markup(
                '<line x1="{x}" x2="{x}" y1="{top}" y2="{b}" stroke="#e3e3e3"/>'
                '<text x="{x}" y="{y}" text-anchor="middle" fill="#555555">{s} s</text>'
            ).format(x=x, top=_TOP - 4, b=bottom, y=bottom + 14, s=second)
        )
    return lines


def _bar(bar: Bar, end: float) -> Markup:
    fill, _ = KINDS.get(bar.kind, _OTHER)
    left, right = _x(bar.begin, end), _x(bar.end, end)
    return Markup(
        '<rect x="{x:.1f}" y="{y}" width="{w:.1f}" height="{h}" fill="{fill}" '
        'stroke="#ffffff" stroke-width="0.8"><title>{label}: {seconds:.1f} s</title></rect>'
    ).format(
        x=left,
        y=_TOP + bar.lane * _LANE + 3,
        w=right - left,
        h=_LANE - 6,
        fill=fill,
        label=bar.label,
        seconds=bar.end - bar.begin,
    )


def _written(bar: Bar, end: float) -> Markup:
    """The name of a stage, where it is long enough to hold it."""
    left, right = _x(bar.begin, end), _x(bar.end, end)
    if right - left < _LETTER * len(bar.label) + 8:
        return Markup("")
    light = "#ffffff" if bar.kind == "build" else "#000000"
    return Markup(
        '<text x="{x:.1f}" y="{y}" text-anchor="middle" fill="{fill}">{name}</text>'
    ).format(x=(left + right) / 2, y=_TOP + _LANE // 2 + 4, fill=light, name=bar.label)


def _name(lane: int) -> Markup:
    return Markup('<text x="{x}" y="{y}" text-anchor="end">{name}</text>').format(
        x=_LEFT - 8,
        y=_TOP + lane * _LANE + _LANE // 2 + 4,
        name="stages" if lane == 0 else f"guest {lane}",
    )


def _aim(aim: float, end: float, bottom: int) -> Markup:
    return Markup(
        '<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{b}" stroke="#b00020" '
        'stroke-dasharray="5 3"/>'
        '<text x="{x:.1f}" y="{y}" text-anchor="middle" fill="#b00020">aim: {aim:g} s</text>'
    ).format(x=_x(aim, end), top=_TOP - 8, b=bottom, y=_TOP - 14, aim=aim)


def _legend(y: int) -> Iterator[Markup]:
    x = _LEFT
    for fill, name in (*KINDS.values(), _OTHER):
        yield Markup(
            '<rect x="{x}" y="{y}" width="12" height="12" fill="{fill}"/>'
            '<text x="{tx}" y="{ty}">{name}</text>'
        ).format(x=x, y=y, fill=fill, tx=x + 18, ty=y + 10, name=name)
        x += 40 + _LETTER * len(name)
