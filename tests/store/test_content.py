# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchlab.errors import StoreError
from patchlab.store import content


def fill(text: str) -> content.Builder:
    return lambda folder: void((folder / "file").write_text(text))


def void(_: object) -> None:
    pass


def test_what_is_published_is_found_and_not_built_again(tmp_path: Path) -> None:
    room = tmp_path / "images"
    assert content.find(room, "k") is None
    first = content.publish(room, "k", fill("one"))
    again = content.publish(room, "k", fill("two"))
    assert first == again == content.find(room, "k") == room / "k"
    assert (first / "file").read_text() == "one"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        content.publish(tmp_path / "images", "k", fail)
    assert content.find(tmp_path / "images", "k") is None
    assert list((tmp_path / "tmp").iterdir()) == []
    assert content.publish(tmp_path / "images", "k", fill("ok")).is_dir()


def test_what_a_build_made_unwritable_is_removed_too(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("x")
        (folder / "inner").chmod(0o500)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        content.publish(tmp_path / "images", "k", fail)
    assert list((tmp_path / "tmp").iterdir()) == []


def _build_slowly(room: Path, count: Path) -> None:
    def build(folder: Path) -> None:
        with count.open("a") as file:
            file.write("built\n")
        (folder / "file").write_text("whole")

    content.publish(room, "k", build)


def test_processes_that_want_the_same_key_build_it_once(tmp_path: Path) -> None:
    room, count = tmp_path / "images", tmp_path / "count"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_build_slowly, args=(room, count)) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 6
    assert count.read_text() == "built\n"


def _die_inside(room: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    content.publish(room, "k", build)


def test_a_killed_build_is_not_taken_for_whole_and_is_cleaned_away(tmp_path: Path) -> None:
    room = tmp_path / "images"
    worker = multiprocessing.get_context("fork").Process(target=_die_inside, args=(room,))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    assert content.find(room, "k") is None
    [left] = (tmp_path / "tmp").iterdir()
    assert content.clean_leftovers(tmp_path) == (left,)
    assert not left.exists()
    assert (content.publish(room, "k", fill("new")) / "file").read_text() == "new"


def test_a_build_that_goes_on_is_not_cleaned_away_and_others_give_up(tmp_path: Path) -> None:
    room = tmp_path / "images"

    def build(folder: Path) -> None:
        (folder / "file").write_text("x")
        assert content.clean_leftovers(tmp_path) == ()
        with pytest.raises(StoreError, match="another process"):
            content.publish(room, "k", fill("y"), patience=0.1)

    assert (content.publish(room, "k", build) / "file").read_text() == "x"


def test_discard(tmp_path: Path) -> None:
    room = tmp_path / "images"
    content.publish(room, "k", fill("one"))
    content.discard(room, "k")
    content.discard(room, "k")
    assert content.find(room, "k") is None
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("key", ["", "../up", "a/b", ".hidden", "a=b", "a b"])
def test_a_key_is_a_plain_name(tmp_path: Path, key: str) -> None:
    with pytest.raises(StoreError):
        content.publish(tmp_path / "images", key, fill("x"))


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_unequal_parts_have_unequal_digests(first: list[str], second: list[str]) -> None:
    same = content.digest(*first) == content.digest(*second)
    assert same == (first == second)
