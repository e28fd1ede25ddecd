# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's plain tree is copied without what was built in it, and is never written to."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from patchlab.errors import LostInstrument, UsageError
from patchlab.model import Base, DirectorySource
from patchlab.paths import Cache
from patchlab.progress import Silent
from patchlab.sources import digests, source
from tests.sources import small_kernel
from tests.sources.small_kernel import FILES

TOML = '[source]\nkind = "directory"\npath = "linux"\n'
EXPECTED = FILES | {"link": "-> fs/file.c"}


@pytest.fixture
def linux(tmp_path: Path) -> Path:
    """A tree that was built in, with a repository around it."""
    tree = small_kernel.repository(tmp_path / "linux")
    for name in ("vmlinux", "fs/file.o", "fs/.file.o.cmd", ".config"):
        (tree / name).write_text("built\n")
    return tree


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def base(linux: Path) -> Base:
    return small_kernel.base(linux.parent, DirectorySource(linux), TOML)


def test_only_the_sources_are_copied_and_the_tree_is_left_as_it_was(
    linux: Path, cache: Cache
) -> None:
    (linux / "fs/new.c").write_text("int n;\n")
    before = small_kernel.listing(linux)
    tree = source.fetch(base(linux), cache, Silent())
    assert small_kernel.listing(linux) == before
    assert small_kernel.content(tree.folder) == EXPECTED | {"fs/new.c": "int n;\n"}
    assert not (tree.folder / "fs/file.c").samefile(linux / "fs/file.c")
    assert os.access(tree.folder / "scripts/run.sh", os.X_OK)
    assert (tree.package, tree.version[:6]) == ("directory", "linux ")


@pytest.mark.parametrize("ignore", ["/*\n!/debian/\n", ""])
def test_debians_own_gitignore_or_none_at_all_does_not_matter(
    linux: Path, cache: Cache, ignore: str
) -> None:
    (linux / ".gitignore").write_text(ignore)
    tree = source.fetch(base(linux), cache, Silent())
    assert small_kernel.content(tree.folder) == EXPECTED | {".gitignore": ignore}


def test_building_in_the_tree_changes_no_key_and_an_edit_does(linux: Path, cache: Cache) -> None:
    key = source.key(base(linux), cache)
    (linux / "fs/other.o").write_text("built\n")
    os.utime(linux / "fs/file.c")
    assert source.key(base(linux), cache) == key
    (linux / "scripts/run.sh").chmod(0o644)
    without = source.key(base(linux), cache)
    (linux / "fs/file.c").write_text("int z;\n")
    assert len({key, without, source.key(base(linux), cache)}) == 3


def test_a_file_is_read_again_only_when_it_changed(tmp_path: Path, cache: Cache) -> None:
    file = tmp_path / "file.c"
    file.write_text("int x;\n")
    old = time.time() - 60
    os.utime(file, (old, old))  # its ctime is now: too new to be trusted
    first = digests.of(str(file), None)
    digests.store(file, cache, {"": first})
    assert digests.load(file, cache) == {}
    trusted = msgspec.structs.replace(first, ctime=first.ctime - 10**10, sha256=b"remembered")
    digests.store(file, cache, {"": trusted})
    remembered = digests.load(file, cache)[""]
    assert remembered == trusted
    assert digests.of(str(file), first) is first
    assert digests.of(str(file), remembered) == first  # another ctime: it was read


def test_an_edit_while_it_is_copied_publishes_nothing(linux: Path, cache: Cache) -> None:
    mine = base(linux)
    source.find(mine, cache)
    (linux / "fs/file.c").write_text("edited\n")
    with pytest.raises(LostInstrument, match=r"fs/file\.c changed while .* was copied"):
        source.fetch(mine, cache, Silent())
    assert not any(cache.room("sources").iterdir())


def test_what_is_not_there_and_what_is_no_kernel_is_refused(linux: Path, cache: Cache) -> None:
    with pytest.raises(UsageError, match=r"mine\.toml:3: path: .*none: no such folder"):
        small = small_kernel.base(linux.parent, DirectorySource(linux.parent / "none"), TOML)
        source.find(small, cache)
    (linux / "Makefile").write_text("all:\n")
    with pytest.raises(UsageError, match="a Makefile without VERSION and PATCHLEVEL"):
        source.find(base(linux), cache)
