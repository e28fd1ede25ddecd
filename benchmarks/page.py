# SPDX-License-Identifier: GPL-2.0-or-later
"""The generated part of docs/speed.md, and the picture beside it: both from the JSON alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks import picture, record
from benchmarks.figures import EDIT, EDIT_AIM, FIGURES
from benchmarks.record import Row, Taken
from patchlab.errors import UsageError

BEGIN = "<!-- make bench writes from here -->"
END = "<!-- to here -->"
PICTURE = "speed-edit.svg"
_BUSY = 0.25  # of all cores, in use before the figure began: its times are those of two jobs


def write(docs: Path, taken: Mapping[str, Taken]) -> None:
    """Put the table into ``docs/speed.md``, between its two marks, and the picture beside it."""
    file = docs / "speed.md"
    record.write(file, filled(file.read_text(encoding="utf-8"), taken))
    if drawn := drawing(taken):
        record.write(docs / PICTURE, drawn)


def filled(text: str, taken: Mapping[str, Taken]) -> str:
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"docs/speed.md has not both marks, {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables(taken)}\n{END}{after}"


def drawing(taken: Mapping[str, Taken]) -> str:
    one = taken.get(EDIT)
    bars = one.found.timeline if one else ()
    return str(picture.timeline(bars, EDIT_AIM)) if bars else ""


def tables(taken: Mapping[str, Taken]) -> str:
    """Markdown: one table of all figures, then when and where each was taken."""
    lines = ["| figure | what | taken | aim | |", "|---|---|---|---|---|"]
    for name in FIGURES:
        lines += _figure(name, taken.get(name))
    lines += ["", "| figure | taken | lab | load before | took |", "|---|---|---|---|---|"]
    lines += [_place(name, taken[name]) for name in FIGURES if name in taken]
    hosts = dict.fromkeys(_host(one) for one in taken.values())
    return "\n".join([*lines, "", *(f"Host: {host}." for host in hosts)]).rstrip() + "\n"


def _figure(name: str, one: Taken | None) -> Iterator[str]:
    link = f"[{name}](#{name})"
    if one is None:
        yield f"| {link} | not taken yet | | | |"
        return
    if one.unmeasured:
        yield f"| {link} | not measured: {_cell(one.unmeasured)} | | | not measured |"
    for index, row in enumerate(one.found.rows):
        yield f"| {link if index == 0 else ''} {_row(row)}"


def _row(row: Row) -> str:
    what = _cell(row.what + (f" ({row.note})" if row.note else ""))
    word = record.word(row)
    shown = f"**{word}**" if word.startswith("falls") else word
    return f"| {what} | {_cell(record.shown(row))} | {record.aim(row)} | {shown} |"


def _place(name: str, one: Taken) -> str:
    load = " ".join(f"{value:.2f}" for value in one.load)
    busy = " (busy!)" if one.busy > _BUSY else ""
    load = f"{load}, {100 * one.busy:.0f} % of the cores in use{busy}"
    return f"| {name} | {one.when} | `{one.commit}` | {load} | {one.seconds:.0f} s |"


def _host(one: Taken) -> str:
    return ", ".join(f"{key} {value}" for key, value in one.host.items())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "¦")
