# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a metric moved, for a terminal: rich renderables, or a plain string of 100 columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from patchlab.explain import counts
from patchlab.explain.counts import USER, Row
from patchlab.explain.differences import Patched
from patchlab.explain.explain import Explanation
from patchlab.explain.functions import Change
from patchlab.report import plain, words

SHOWN = 20  # rows of a table
_SIZES = {
    "functions": "code of functions",
    "text": "text, with its padding",
    "rodata": "constant data",
    "data": "data",
    "bss": "zeroed data",
    "bzImage": "bzImage, compressed",
}


def render(one: Explanation, width: int = plain.WIDTH) -> str:
    """Plain text without colours, at most ``width`` columns wide."""
    return plain.render(renderables(one), width)


def renderables(one: Explanation) -> list[RenderableType]:
    """What a command prints, one part after the other; all of it is Text, never markup."""
    return [
        _title(one),
        *_differences(one),
        *_changes(one),
        _places(one),
        *_sums(one),
        _events(one),
    ]


def _title(one: Explanation) -> Text:
    metric = one.measured.metric
    return Text(
        f"{metric.id} in run {one.run}: {one.arms[1]} against {one.arms[0]}\n"
        f"{words.visible(metric.sentence)}. Instructions a {words.visible(metric.unit)}.\n",
        style="bold",
    )


def _heads(one: Explanation) -> tuple[str, ...]:
    """Names of the arms that fit over a column: those of their revisions where they differ."""
    ends = tuple(arm.rsplit("@", 1)[-1] for arm in one.arms)
    return ends if len(set(ends)) == len(ends) else one.arms


def _table(title: str, *columns: str, right: Collection[int] = ()) -> Table:
    table = Table(box=SIMPLE_HEAD, title=Text(title), title_justify="left", pad_edge=False)
    table.title_style = "bold"
    for number, column in enumerate(columns):
        table.add_column(
            Text(column), overflow="fold", justify="right" if number in right else "left"
        )
    return table


def _row(table: Table, *cells: str) -> None:
    table.add_row(*(Text(words.visible(cell)) for cell in cells))


# ---------------------------------------------------------------- what differs


def _differences(one: Explanation) -> Iterable[RenderableType]:
    found = one.differences
    table = _table("What differs", "", *_heads(one))
    _row(table, "patches", *(_patches(patches) for patches in found.patches))
    for pair in found.other:
        _row(table, pair.what, pair.before, pair.after)
    for pair in found.config[:SHOWN]:
        _row(table, f"CONFIG_{pair.what}", pair.before, pair.after)
    for pair in found.sizes:
        if pair.before != pair.after:
            _row(table, f"{_SIZES.get(pair.what, pair.what)}, bytes", pair.before, pair.after)
    yield table
    more = len(found.config) - SHOWN
    if more > 0:
        yield Text(f"… and {words.plural(more, 'more option')} of the config\n")
    if not found.config:
        yield Text(f"All {found.options:,} options of the config are the same.\n")


def _patches(patches: Sequence[Patched]) -> str:
    """Each revision, how many patches of it, and the files that they touch, one a line."""
    revisions = dict.fromkeys(patch.revision for patch in patches)
    lines = []
    for revision in revisions:
        own = [patch for patch in patches if patch.revision == revision]
        files = sorted({file for patch in own for file in patch.files})
        lines += [f"{revision}, {_count(len(own))}:"]
        lines += [f"  {file}" for file in files]
    return "\n".join(lines) or "none"


def _count(patches: int) -> str:
    return "1 patch" if patches == 1 else f"{patches} patches"


def _changes(one: Explanation) -> Iterable[RenderableType]:
    if not one.changes:
        yield Text("No function differs.\n")
        return
    kinds = [change.kind for change in one.changes]
    summary = ", ".join(
        f"{kinds.count(kind)} {kind}" for kind in ("changed", "added", "removed") if kind in kinds
    )
    before, after = _heads(one)
    head = (f"bytes, {before}", f"bytes, {after}", "executed")
    table = _table(f"Functions: {summary}", "function", "", *head, right=(2, 3))
    executed = _executed(one)
    order = sorted(one.changes, key=lambda c: (c.name not in executed, c.name))
    for change in order[:SHOWN]:
        sizes = (f"{size:,}" if size else words.NONE for size in (change.before, change.after))
        _row(table, change.name, change.kind, *sizes, "yes" if change.name in executed else "no")
    yield table
    if rest := order[SHOWN:]:
        ran = sum(change.name in executed for change in rest)
        yield Text(f"… and {words.plural(len(rest), 'more function')}, {ran} of them executed\n")


def _executed(one: Explanation) -> set[str]:
    return {place for profile in one.profiles for place in profile.places}


# ---------------------------------------------------------------- where the instructions are


def _places(one: Explanation) -> Table:
    rows = counts.rows(*one.profiles)
    named = {change.name: change for change in one.changes}
    before, after = _heads(one)
    table = _table(
        "Where the instructions are, a unit; calls a unit in brackets",
        *("place", before, after, "difference", "code"),
        right=(1, 2, 3),
    )
    moved = [row for row in rows if abs(row.difference) >= 0.05]
    for row in moved[:SHOWN]:
        _place(table, row, named)
    shown = set(moved[:SHOWN])
    rest = [row for row in rows if row not in shown]
    if rest:
        label = f"… and {words.plural(len(rest), 'more place')}, sum"
        _place(table, counts.together(rest, label), {})
    table.add_section()
    _place(table, counts.together(rows, "sum"), {})
    return table


def _place(table: Table, row: Row, named: dict[str, Change]) -> None:
    def cell(tally: counts.Tally) -> str:
        calls = f" ({tally.calls:,.2f})" if tally.calls and row.place in known else ""
        return f"{tally.instructions:,.1f}{calls}"

    known = {row.place} if not row.place.startswith(("…", "sum", USER)) else set()
    change = named.get(row.place)
    _row(
        table,
        row.place,
        cell(row.before),
        cell(row.after),
        signed(row.difference),
        change.kind if change else "",
    )


def signed(value: float) -> str:
    """One decimal and a sign: +12.5, −3.0, ±0.0."""
    text = f"{value:+,.1f}"
    return f"±{text[1:]}" if not float(text.replace(",", "")) else text.replace("-", words.MINUS)


def _sums(one: Explanation) -> Iterable[RenderableType]:
    measured, (before, after) = one.measured, one.profiles
    table = _table("Beside what was measured", "", *_heads(one), "difference", right=(1, 2, 3))

    def line(what: str, old: float, new: float) -> None:
        _row(table, what, f"{old:,.1f}", f"{new:,.1f}", signed(new - old))

    line("counted, the sum above", before.total, after.total)
    line("the guest's clock in the same windows", before.clock, after.clock)
    off = [_apart(profile.total, profile.clock) for profile in one.profiles]
    _row(table, "  apart", *off, "")
    if measured.baseline is not None and measured.candidate is not None:
        line(
            f"run {one.run}, {words.plural(measured.blocks, 'block')}",
            measured.baseline,
            measured.candidate,
        )
        levels = (measured.baseline, measured.candidate)
        pairs = zip(one.profiles, levels, strict=True)
        _row(table, "  apart", *(_apart(profile.total, level) for profile, level in pairs), "")
    yield table
    if measured.change is not None and measured.baseline:
        traced = after.total - before.total
        share = (traced - measured.change) / measured.baseline
        yield Text(
            f"The traced boots differ by {signed(traced)}, the run's by {signed(measured.change)} "
            f"(geometric means of {words.plural(measured.blocks, 'block')}): "
            f"{words.percent(share, 3)} of the level apart.\n"
        )
    yield from (Text(f"· {note}\n") for note in one.drift)


def _apart(one: float, other: float) -> str:
    return words.percent(one / other - 1 if other else None, 3)


# ---------------------------------------------------------------- requests and faults


def _events(one: Explanation) -> Table:
    before, after = one.profiles
    table = _table("Counted in the same windows, a unit", "", *_heads(one), right=(1, 2))
    number: Callable[[float], str] = "{:,.3f}".format
    for what in dict.fromkeys((*before.events, *after.events)):
        cells = (profile.events.get(what, 0.0) for profile in (before, after))
        _row(table, what, *(number(cell) for cell in cells))
    windows = (f"{profile.windows} of {profile.of}" for profile in (before, after))
    _row(table, "windows that the statistic picked", *windows)
    return table
