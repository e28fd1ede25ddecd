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
    tree.clone(source(tmp_path / "source"), folder)
    assert make(folder) == ["one.o", "two.o"]
    return folder


@pytest.mark.parametrize("ahead", [-DAY, 0, DAY])
def test_make_rebuilds_what_was_patched_and_nothing_else(
    built: Path, tmp_path: Path, ahead: float
) -> None:
    """``ahead``: the base was built by a clock that many seconds before or after today's."""
    for path in built.glob("*.o"):
        date(path, time.time() + ahead)
    again = grown(built, tmp_path / "again")
    assert make(again) == []
    clone = grown(built, tmp_path / "clone", {"one.c": "patched\n"})
    assert make(clone) == ["one.o"]
    assert (clone / "one.o").read_text() == "patched\nh\n"
    assert make(clone) == []


def grown(built: Path, to: Path, texts: dict[str, str] | None = None, *before: str) -> Path:
    """A tree with that patch, which goes on from ``built``, whose patches wrote ``before``."""
    texts = texts or {}
    tree.clone(to.parent / "source", to)
    for name, text in texts.items():
        patch(to, name, text)
        date(to / name, time.time() - 2 * DAY)  # a clock set back while the patch went in
    tree.lay(to.parent / "source", built, to, {*texts, *before, "gone/with/the.patch"})
    return to


def test_a_variant_goes_on_from_the_tree_of_another(built: Path, tmp_path: Path) -> None:
    texts = {"common.h": "first\n", "new.h": "new\n", "two.c": "first\n"}
    first = grown(built, tmp_path / "first", texts)
    assert make(first) == ["one.o", "two.o"]

    stack = grown(first, tmp_path / "stack", {**texts, "two.c": "both\n"}, *texts)
    assert make(stack) == ["two.o"]
    assert (stack / "one.o").read_text() == "one\nfirst\n"
    assert (stack / "two.o").read_text() == "both\nfirst\n"

    # Another, which leaves alone what the first one patched.
    other = grown(first, tmp_path / "other", {"common.h": "first\n"}, *texts)
    assert make(other) == ["two.o"]
    assert (other / "two.o").read_text() == "two\nfirst\n"
    assert not (other / "new.h").exists()
    assert not (other / "two.c").samefile(tmp_path / "source/two.c")
    assert (tmp_path / "source/two.c").stat().st_mtime < time.time() - 20 * DAY


def test_a_link_is_never_what_it_was_when_its_objects_were_made(
    built: Path, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    tree.clone(tmp_path / "source", clone)
    (clone / "one.c").unlink()
    (clone / "one.c").symlink_to(built / "one.c")
    tree.lay(tmp_path / "source", built, clone, ["one.c"])
    assert (clone / "one.c").lstat().st_mtime > (clone / "two.o").stat().st_mtime


def test_a_file_that_patches_leave_as_it_was_stays_shared(built: Path, tmp_path: Path) -> None:
    before = (tmp_path / "source/two.c").stat().st_mtime_ns
    clone = grown(built, tmp_path / "clone", {}, "two.c")
    assert (tmp_path / "source/two.c").stat().st_mtime_ns == before
    assert (clone / "two.c").samefile(tmp_path / "source/two.c")


def test_a_clock_before_the_sources_is_said_before_make_runs_in_circles(tmp_path: Path) -> None:
    with pytest.raises(LostInstrument, match="the clock of this host says") as caught:
        tree.clone(source(tmp_path / "source", age=-DAY), tmp_path / "clone")
    assert "set the clock" in caught.value.hint
    assert not (tmp_path / "clone").exists()


def test_links_that_a_build_made_stay_links(built: Path, tmp_path: Path) -> None:
    (built / "latest").symlink_to("one.o")
    clone = grown(built, tmp_path / "clone")
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
