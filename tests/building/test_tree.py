# SPDX-License-Identifier: GPL-2.0-or-later
"""A clone goes on where the build of its base ended, whatever the host's clock has done since."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from patchlab import proc
from patchlab.building import tree
from patchlab.errors import LostInstrument

DAY = 86_400
MAKEFILE = "all: one.o two.o\n%.o: %.c common.h\n\tcat $^ >$@\n"


def source(folder: Path, age: float = 30 * DAY) -> Path:
    """A tree of a month ago that make builds."""
    folder.mkdir()
    texts = {"Makefile": MAKEFILE, "one.c": "one\n", "two.c": "two\n", "common.h": "h\n"}
    for name, text in texts.items():
        (folder / name).write_text(text)
        date(folder / name, time.time() - age)
    return folder


def date(path: Path, when: float) -> None:
    os.utime(path, (when, when))


def make(folder: Path) -> list[str]:
    """What it made, by the targets' names."""
    ran = proc.run(["make", "-C", str(folder), "--no-print-directory"], deadline=30)
    return [line.rpartition(">")[2] for line in ran.output.splitlines() if line.startswith("cat")]


def patch(folder: Path, name: str, text: str) -> None:
    """As git apply does: a new file in place of the old one."""
    new = folder / f"{name}.new"
    new.write_text(text)
    new.replace(folder / name)


@pytest.fixture
def built(tmp_path: Path) -> Path:
    folder = tmp_path / "built"
    tree.clone(source(tmp_path / "source"), None, folder)
    assert make(folder) == ["one.o", "two.o"]
    return folder


@pytest.mark.parametrize("ahead", [-DAY, 0, DAY])
def test_make_rebuilds_what_was_patched_and_nothing_else(
    built: Path, tmp_path: Path, ahead: float
) -> None:
    """``ahead``: the base was built by a clock that many seconds before or after today's."""
    for path in built.glob("*.o"):
        date(path, time.time() + ahead)
    clone = tmp_path / "clone"
    newest = tree.clone(tmp_path / "source", built, clone)
    assert make(clone) == []
    patch(clone, "one.c", "patched\n")
    date(clone / "one.c", time.time() - 2 * DAY)  # a clock set back while the patch went in
    tree.date_patched(clone, ["one.c", "gone/with/the.patch"], newest, built)
    assert make(clone) == ["one.o"]
    assert (clone / "one.o").read_text() == "patched\nh\n"
    assert make(clone) == []


def test_a_stack_starts_from_the_tree_that_has_its_first_patches_built(
    built: Path, tmp_path: Path
) -> None:
    first, stack, patched = tmp_path / "first", tmp_path / "stack", ["common.h", "new.h", "two.c"]
    newest = tree.clone(tmp_path / "source", built, first)
    texts = dict(zip(patched, ["first\n"] * 3, strict=True))
    for name, text in texts.items():
        patch(first, name, text)
    tree.date_patched(first, patched, newest, built)
    assert make(first) == ["one.o", "two.o"]

    newest = tree.clone(tmp_path / "source", first, stack, patched)
    assert (stack / "common.h").samefile(tmp_path / "source/common.h")
    assert not (stack / "new.h").exists()
    for name, text in (texts | {"two.c": "both\n"}).items():
        patch(stack, name, text)
    tree.date_patched(stack, patched, newest, first)
    assert make(stack) == ["two.o"]
    assert (stack / "one.o").read_text() == "one\nfirst\n"
    assert (stack / "two.o").read_text() == "both\nfirst\n"


def test_a_link_is_never_what_it_was_when_its_objects_were_made(
    built: Path, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    newest = tree.clone(tmp_path / "source", built, clone)
    (clone / "one.c").unlink()
    (clone / "one.c").symlink_to(built / "one.c")
    tree.date_patched(clone, ["one.c"], newest, built)
    assert (clone / "one.c").lstat().st_mtime_ns > newest


def test_a_clone_dates_no_file_that_it_shares(built: Path, tmp_path: Path) -> None:
    before = (tmp_path / "source/two.c").stat().st_mtime_ns
    clone = tmp_path / "clone"
    newest = tree.clone(tmp_path / "source", built, clone)
    tree.date_patched(clone, ["two.c"], newest, built)
    assert (tmp_path / "source/two.c").stat().st_mtime_ns == before
    assert (clone / "two.c").samefile(tmp_path / "source/two.c")


def test_a_clock_before_the_sources_is_said_before_make_runs_in_circles(tmp_path: Path) -> None:
    with pytest.raises(LostInstrument, match="the clock of this host says") as caught:
        tree.clone(source(tmp_path / "source", age=-DAY), None, tmp_path / "clone")
    assert "set the clock" in caught.value.hint
    assert not (tmp_path / "clone").exists()


def test_links_that_a_build_made_stay_links(built: Path, tmp_path: Path) -> None:
    (built / "latest").symlink_to("one.o")
    clone = tmp_path / "clone"
    tree.clone(tmp_path / "source", built, clone)
    assert (clone / "latest").readlink() == Path("one.o")


def test_what_depends_on_a_header_is_counted_by_what_kbuild_kept(tmp_path: Path) -> None:
    objects = {
        "fs/fuse/.file.o.cmd": "deps := \\\n  fs/fuse/fuse_i.h \\\n  include/a.h \\\n",
        "fs/.open.o.cmd": "source_fs/open.o := fs/open.c\n\ndeps := \\\n  include/a.h \\\n",
        "mm/.mmap.o.cmd": "deps := \\\n  include/linux/a.h \\\n",
        "mm/mmap.o": "include/a.h",
    }
    for name, text in objects.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert tree.dependants(tmp_path, ["include/a.h"]) == 2
    assert tree.dependants(tmp_path, ["fs/fuse/fuse_i.h", "fs/open.c"]) == 2
    assert tree.dependants(tmp_path, ["a.h"]) == 0
