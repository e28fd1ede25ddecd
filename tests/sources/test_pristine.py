# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from patchlab.building import tree
from patchlab.errors import BuildError
from patchlab.model import SourceTree
from patchlab.paths import Cache
from patchlab.sources import pristine
from patchlab.store import content

KEY = "linux_1"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    def fill(folder: Path) -> None:
        (folder / "tree" / "fs").mkdir(parents=True)
        (folder / "tree" / "fs" / "file.c").write_text("int x;\n")
        (folder / "tree" / "Makefile").write_text("all:\n")
        (folder / "tree" / "link").symlink_to("Makefile")
        for file in ("Makefile", "fs/file.c", "link"):  # make goes by dates: tree.clone()
            os.utime(folder / "tree" / file, (10**9, 10**9), follow_symlinks=False)
        pristine.record(folder / "tree")

    cache = Cache(tmp_path / "cache")
    content.publish(cache.room("sources"), KEY, fill)
    content.publish(cache.room("trees"), "built", lambda _: None)
    return cache


def source(cache: Cache) -> SourceTree:
    return SourceTree(cache.room("sources") / KEY / "tree", KEY, "linux", "1", "")


@pytest.fixture
def variant(cache: Cache, tmp_path: Path) -> Path:
    tree.clone(source(cache).folder, tmp_path / "variant")
    return tmp_path / "variant"


def append(variant: Path) -> None:
    with (variant / "fs" / "file.c").open("a") as file:
        file.write("planted\n")


def write_and_set_the_time_back(variant: Path) -> None:
    path = variant / "fs" / "file.c"
    status = path.stat()
    path.write_text("int y;\n")  # as long as before
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def change_mode(variant: Path) -> None:
    (variant / "fs" / "file.c").chmod(0o777)


@pytest.mark.parametrize("attack", [append, write_and_set_the_time_back, change_mode])
def test_a_write_through_a_link_is_found_and_the_cache_is_rid_of_it(
    cache: Cache, variant: Path, attack: Callable[[Path], None]
) -> None:
    with (
        pytest.raises(BuildError, match=r"wrote into the shared source: fs/file\.c;"),
        pristine.guarded(source(cache), cache),
    ):
        attack(variant)
    assert content.find(cache.room("sources"), KEY) is None
    assert content.find(cache.room("trees"), "built") is None


def test_what_git_and_make_and_other_variants_do_is_no_alarm(
    cache: Cache, variant: Path, tmp_path: Path
) -> None:
    with pristine.guarded(source(cache), cache):
        (variant / "fs" / "file.c").unlink()
        (variant / "fs" / "file.c").write_text("patched\n")
        (variant / "fs" / "file.o").write_text("object")
        tree.clone(source(cache).folder, tmp_path / "another")
    assert content.find(cache.room("sources"), KEY)
    assert list(cache.room("guards").iterdir()) == []


def test_a_failed_build_is_looked_at_too(cache: Cache, variant: Path) -> None:
    with (
        pytest.raises(BuildError, match="wrote into the shared source"),
        pristine.guarded(source(cache), cache),
    ):
        append(variant)
        raise BuildError("it does not compile")


def _attack_and_die(cache: Cache, variant: Path) -> None:
    with pristine.guarded(source(cache), cache):
        append(variant)
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_lab_did_not_look_at_is_found_by_the_next(
    cache: Cache, variant: Path
) -> None:
    context = multiprocessing.get_context("fork")
    lab = context.Process(target=_attack_and_die, args=(cache, variant))
    lab.start()
    lab.join()
    assert lab.exitcode == -signal.SIGKILL
    with (
        pytest.raises(BuildError, match="wrote into the shared source"),
        pristine.guarded(source(cache), cache),
    ):
        pytest.fail("the build must not start")
