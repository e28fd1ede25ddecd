# SPDX-License-Identifier: GPL-2.0-or-later
"""Changed functions of real linked files, which moved as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchlab.errors import BuildError
from patchlab.explain import functions, symbols
from patchlab.explain.functions import Change
from tests.explain import kernels


def compared(before: Path, after: Path) -> tuple[Change, ...]:
    one, other = kernels.read(before), kernels.read(after)
    some = functions.suspects(one, other)
    return functions.changes(
        functions.hashes(kernels.disassembled(before), one, some),
        functions.hashes(kernels.disassembled(after), other, some),
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kernels.vmlinux(tmp_path_factory.mktemp("plain") / "vmlinux")


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kernels.vmlinux(tmp_path_factory.mktemp("grown") / "vmlinux", first=kernels.GROWN)


def test_what_was_only_moved_has_not_changed(plain: Path, grown: Path) -> None:
    one, other = kernels.read(plain), kernels.read(grown)
    moved = {s.name for s in one.functions} & functions.suspects(one, other)
    assert {"first", "say", "_start"} <= moved  # by their bytes
    (change,) = compared(plain, grown)
    assert (change.name, change.kind) == ("first", "changed")
    assert 0 < change.before < change.after


def test_a_function_that_is_there_on_one_side_only(plain: Path, tmp_path: Path) -> None:
    more = kernels.vmlinux(tmp_path / "vmlinux", more=kernels.MORE)
    (added,) = compared(plain, more)
    assert (added.name, added.kind, added.before) == ("more", "added", 0)
    (removed,) = compared(more, plain)
    assert (removed.name, removed.kind, removed.after) == ("more", "removed", 0)


def test_another_string_or_mask_is_a_change(plain: Path, tmp_path: Path) -> None:
    longer = kernels.SOURCE.replace('"a word"', '"a word that moves what is behind it"')
    moved = kernels.vmlinux(tmp_path / "moved", text=longer)
    assert compared(plain, moved) == ()
    text = longer.replace("tell has", "tell had").replace("0xffffffff81", "0xffffffff82")
    other = kernels.vmlinux(tmp_path / "other", text=text)
    assert [c.name for c in compared(plain, other)] == ["masked", "tell"]


def test_equal_files_have_no_suspects(plain: Path) -> None:
    one = kernels.read(plain)
    assert functions.suspects(one, one) == frozenset()


def test_an_address_has_a_name_that_does_not_move(plain: Path, grown: Path) -> None:
    for file in (plain, grown):
        table = kernels.read(file)
        tell = next(s for s in table.functions if s.name == "tell")
        assert table.name(tell.address + 4) == "tell+0x4"
        found = table.function(tell.address + tell.size - 1)
        assert found is not None
        assert found.name == "tell"
        assert table.function(0x400000) is None
        assert table.sizes()["text"] >= sum(s.size for s in table.functions) > 0


def test_numbers_of_the_compiler_do_not_count() -> None:
    assert symbols.stable("fuse_link_write_file.isra.0") == "fuse_link_write_file.isra"
    assert symbols.stable("__func__.1234") == "__func__"
    assert symbols.stable("foo.part.0.cold") == "foo.part.cold"
    assert symbols.stable("sha256_transform") == "sha256_transform"


def test_equal_namesakes_cancel() -> None:
    before = {"init": (("a", 10), ("b", 20)), "gone": (("c", 5),)}
    after = {"init": (("b", 20), ("x", 12)), "new": (("c", 5),)}
    assert functions.changes(before, after) == (
        Change("gone", 5, 0),
        Change("init", 10, 12),
        Change("new", 0, 5),
    )


@pytest.mark.parametrize("size", [0, 40, 5000])
def test_a_cut_file_is_an_error_that_names_it(plain: Path, size: int) -> None:
    with pytest.raises(BuildError, match="not a whole ELF-64 file"):
        symbols.read(memoryview(plain.read_bytes()[:size]), "vmlinux")
