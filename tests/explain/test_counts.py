# SPDX-License-Identifier: GPL-2.0-or-later
"""From counted addresses to instructions a unit."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from patchlab.errors import LostInstrument
from patchlab.explain import counts
from patchlab.explain.counts import Region, Row, Tally, Trace, Window
from patchlab.explain.symbols import Symbol, Symbols
from tests.explain import kernels

UNITS = 10
PYTHON = Region(0x555555000000, 0x555555400000, "/usr/bin/python3.13")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Symbols:
    return kernels.read(kernels.vmlinux(tmp_path_factory.mktemp("k") / "vmlinux"))


def named(table: Symbols, name: str) -> Symbol:
    return next(s for s in table.functions if s.name == name)


def written(*windows: dict[int, int]) -> bytes:
    return b"".join(
        struct.pack("<Q", len(w)) + b"".join(struct.pack("<QQ", *entry) for entry in w.items())
        for w in windows
    )


def window(ns: int, idle: bool = False) -> Window:
    return Window(ns, idle, faults=20, major=0)


def trace(table: Symbols) -> Trace:
    tell, user = named(table, "tell"), PYTHON.start + 8
    marks = {user: 130}  # the clock sees 30 of them
    busy = {tell.address: 40, tell.address + 1: 60, user: 1130, 0x1000: 7}
    windows = (window(60), window(10**6), window(2 * (100 + 1030 + 7)), window(9_000, idle=True))
    return Trace(windows, (marks, marks, busy, busy), 2, UNITS, (PYTHON,))


def test_what_the_plugin_wrote_is_read_back() -> None:
    windows: tuple[dict[int, int], ...] = ({1: 2, 2**64 - 1: 3}, {}, {5: 6})
    assert counts.parse(written(*windows)) == windows


@pytest.mark.parametrize("cut", [1, 8, 20])
def test_cut_counts_are_an_error(cut: int) -> None:
    data = written({1: 2, 3: 4})
    with pytest.raises(LostInstrument, match="cut off"):
        counts.parse(data[:-cut])


def test_too_many_instructions_are_an_error() -> None:
    with pytest.raises(LostInstrument, match="more distinct instructions"):
        counts.parse(struct.pack("<Q", 2**64 - 1))


def test_places_sum_to_the_clock_without_the_marks(table: Symbols) -> None:
    found = counts.profile(trace(table), table, "median")
    assert found.places["tell"] == Tally(10.0, 4.0)
    assert found.places["user space: python3.13"].instructions == pytest.approx(103)
    assert found.places["user space: other"].instructions == pytest.approx(0.7)
    assert found.total == pytest.approx(found.clock) == pytest.approx(113.7)
    assert found.events["page faults by /proc/vmstat"] == 2
    assert (found.windows, found.of) == (1, 2)


def test_a_window_that_slept_is_not_used(table: Symbols) -> None:
    whole = trace(table)
    windows = (*whole.windows[:2], *(window(9_000, idle=True) for _ in range(2)))
    asleep = Trace(windows, whole.counts, 2, UNITS, whole.regions)
    with pytest.raises(LostInstrument, match="no window was counted"):
        counts.profile(asleep, table, "median")


def test_windows_that_do_not_match_are_an_error(table: Symbols) -> None:
    whole = trace(table)
    missing = Trace(whole.windows, whole.counts[:3], 2, UNITS, whole.regions)
    with pytest.raises(LostInstrument, match="3 on the host, 4 in the guest"):
        counts.profile(missing, table, "median")


@pytest.mark.parametrize(("statistic", "picked"), [("median", [3, 0]), ("minimum", [1])])
def test_the_statistic_picks_its_windows(statistic: str, picked: list[int]) -> None:
    assert counts.pick([5, 1, 9, 4], statistic) == picked
    assert counts.pick([5, 1, 9], "median") == [0]


def test_rows_are_ordered_by_difference_and_keep_the_sum(table: Symbols) -> None:
    found = counts.profile(trace(table), table, "median")
    more = dict(found.places) | {"tell": Tally(5.0, 4.0), "new": Tally(2.0, 1.0)}
    after = counts.Profile(more, 0.0, {}, 1, 1)
    rows = counts.rows(found, after)
    assert [(r.place, r.difference) for r in rows[:2]] == [("tell", -5.0), ("new", 2.0)]
    total = counts.together(rows, "sum")
    assert total.difference == pytest.approx(-3.0)
    assert total.after.instructions == pytest.approx(after.total)
    assert counts.together([], "none") == Row("none", Tally(0, 0), Tally(0, 0))


def test_a_function_of_the_compilers_clone_has_its_stable_name(tmp_path: Path) -> None:
    clone = r'__asm__(".globl x.part.0\n.type x.part.0, @function\nx.part.0: ret\n'
    clone += r'.size x.part.0, 1");'
    table = kernels.read(kernels.vmlinux(tmp_path / "vmlinux", more=clone))
    at = named(table, "x.part.0").address
    counted = Trace((window(2), window(20)), ({}, {at: 3}), 1, 1, ())
    assert counts.profile(counted, table, "median").places == {"x.part": Tally(3.0, 3.0)}
