# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from patchlab.paths import Cache
from patchlab.progress import Silent
from patchlab.store import content, space

REPOSITORY = Path(__file__).parents[2]
MB = 1 << 20
NOW = 1_700_000_000.0
SOURCE = "linux:1"  # key and inode of the source that entry() links to


def entry(
    room: str,
    key: str,
    days: float,
    own: int,
    shared: Mapping[str, int] | None = None,
    *,
    in_use: bool = False,
) -> space.Entry:
    """Last used ``days`` ago."""
    return space.Entry(room, key, 1, NOW - days * space.DAY, own, shared or {}, in_use)


def linked() -> list[space.Entry]:
    """A source, two trees of hard links into it, and three images; the unit is 1."""
    return [
        entry("images", "new", 1, 60),
        entry("images", "old", 20, 60),
        entry("images", "middle", 5, 60),
        entry("trees", "debug", 19, 300, {SOURCE: 990}),
        entry("trees", "base", 2, 100, {SOURCE: 995}),
        entry("sources", "linux", 2, 1000),
    ]


def gone(plan: space.Plan) -> list[str]:
    return [removal.entry.name for removal in plan.remove]


def test_hard_links_count_once() -> None:
    assert space.size(linked()) == 180 + 400 + 1000
    trees = [one for one in linked() if one.room == "trees"]
    assert space.size(trees) == 400 + 995  # the source is gone: its files live on in the trees
    assert space.size([trees[0]]) == 300 + 990


def test_by_age_only_what_is_old_goes() -> None:
    plan = space.plan(linked(), now=NOW, days=10)
    assert gone(plan) == ["images/old", "trees/debug"]
    assert [removal.frees for removal in plan.remove] == [60, 300]
    assert (plan.before, plan.after, plan.kept) == (1580, 1220, ())
    assert "20 days" in plan.remove[0].why


def test_by_age_a_source_stays_with_its_tree_and_says_what_it_would_gain() -> None:
    entries = [entry("trees", "t", 1, 100, {SOURCE: 990}), entry("sources", "linux", 50, 1000)]
    plan = space.plan(entries, now=NOW, days=10)
    assert gone(plan) == []
    [(kept, why)] = plan.kept
    assert kept.room == "sources"
    assert "trees/t" in why
    both = space.plan([entry("trees", "t", 60, 100, {SOURCE: 990}), entries[1]], now=NOW, days=10)
    assert [(r.entry.room, r.frees) for r in both.remove] == [("trees", 100), ("sources", 1000)]


def test_by_size_the_oldest_use_goes_first_and_a_tree_is_worth_two_weeks() -> None:
    def left(limit: int) -> list[str]:
        return gone(space.plan(linked(), now=NOW, days=None, limit=limit))

    assert left(1580) == []
    assert left(1579) == ["images/old"]
    # The debug tree was last used 14 days before the image: an image is made again in seconds.
    assert left(1500) == ["images/old", "images/middle"]
    assert left(1450) == ["images/old", "images/middle", "trees/debug"]
    assert left(1100) == ["images/old", "images/middle", "trees/debug", "images/new"]
    assert left(0)[-2:] == ["trees/base", "sources/linux"]


def test_a_source_without_trees_does_not_outlive_a_tree_that_is_used() -> None:
    entries = [entry("sources", "old", 40, 1000), *linked()]
    assert gone(space.plan(entries, now=NOW, days=None, limit=1600))[-1] == "sources/old"


def test_what_a_live_process_uses_stays_and_is_named() -> None:
    busy = entry("images", "busy", 90, 60, in_use=True)
    plan = space.plan([busy, *linked()], now=NOW, days=10, limit=0)
    assert "images/busy" not in gone(plan)
    assert [(kept.name, why) for kept, why in plan.kept] == [
        ("images/busy", "in use by a live process")
    ]
    assert plan.after == 60


def test_a_source_whose_tree_is_in_use_is_named_too() -> None:
    entries = [
        entry("trees", "t", 1, 100, {SOURCE: 990}, in_use=True),
        entry("sources", "linux", 1, 1000),
    ]
    plan = space.plan(entries, now=NOW, days=None, limit=0)
    assert gone(plan) == []
    assert {kept.room for kept, _ in plan.kept} == {"trees", "sources"}


# ---------------------------------------------------------------- on real files


def fill(megabytes: int) -> content.Builder:
    def build(to: Path) -> None:
        (to / "file").write_bytes(b"\1" * megabytes * MB)

    return build


def made(cache: Cache, room: str, key: str, megabytes: int) -> Path:
    """An entry, without the wait of publish() until it is on the disk."""
    folder = cache.room(room) / key
    folder.mkdir()
    fill(megabytes)(folder)
    return folder


def by_name(cache: Cache) -> dict[str, space.Entry]:
    return {one.name: one for one in space.entries(cache, Silent())}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A source of 4 MB, and a tree that links it and has 1 MB of its own."""
    cache = Cache(tmp_path)
    source = made(cache, "sources", "linux", 4)
    tree = made(cache, "trees", "t", 1)
    os.link(source / "file", tree / "linked")
    return cache


def test_real_links_are_told_from_copies(cache: Cache) -> None:
    found = by_name(cache)
    assert found["trees/t"].own == pytest.approx(MB, rel=0.1)
    assert found["trees/t"].shared == {found["sources/linux"].identity: 4 * MB}
    assert found["sources/linux"].own == pytest.approx(4 * MB, rel=0.1)
    assert space.size(found.values()) == pytest.approx(5 * MB, rel=0.1)
    (cache.folder / "trees/t/file").unlink()
    assert by_name(cache)["trees/t"].own == found["trees/t"].own  # remembered


def test_a_source_that_was_fetched_again_is_another(cache: Cache) -> None:
    assert space.size(space.entries(cache, Silent())) == pytest.approx(5 * MB, rel=0.1)
    # Moved, not removed, so that the new folder cannot have its inode.
    (cache.folder / "sources/linux").rename(cache.room("tmp") / "linux")
    made(cache, "sources", "linux", 4)
    assert space.size(space.entries(cache, Silent())) == pytest.approx(9 * MB, rel=0.1)


def test_use_is_remembered_and_looking_is_not(cache: Cache) -> None:
    room = cache.room("sources")
    os.utime(room / "linux", (1000, 1000))
    content.find(room, "linux")
    assert by_name(cache)["sources/linux"].used == 1000
    content.use(room, "linux")
    assert by_name(cache)["sources/linux"].used == pytest.approx(time.time(), abs=60)
    os.utime(room / "linux", (1000, 1000))
    content.publish(room, "linux", fill(9))
    assert by_name(cache)["sources/linux"].used == pytest.approx(time.time(), abs=60)


HOLDER = """
import sys
from pathlib import Path
from patchlab.store import content
content.use(Path(sys.argv[1]), "k")
print("held", flush=True)
sys.stdin.read()
"""


def test_another_process_holds_what_it_uses_until_it_is_killed(tmp_path: Path) -> None:
    made(Cache(tmp_path), "images", "k", 1)
    room = tmp_path / "images"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(room)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert content.in_use(room, "k")
        assert by_name(Cache(tmp_path))["images/k"].in_use
        assert not content.discard_unused(room, "k")
        assert content.find(room, "k")
        process.kill()
    assert not content.in_use(room, "k")
    assert content.discard_unused(room, "k")
    assert content.find(room, "k") is None
    assert content.use(room, "k") is None


def test_an_entry_that_was_used_and_is_gone_is_built_again(tmp_path: Path) -> None:
    room = tmp_path / "images"
    content.publish(room, "k", fill(1))
    content.discard(room, "k")
    assert content.use(room, "k") is None
    assert not content.in_use(room, "k")
    assert (content.publish(room, "k", fill(2)) / "file").stat().st_size == 2 * MB
    assert content.in_use(room, "k")


def test_old_logs_and_what_is_left_are_found(cache: Cache) -> None:
    logs = cache.room("logs")
    for name, when in (("old.log", NOW - 40 * space.DAY), ("new.log", NOW)):
        (logs / name).write_text("x" * 10_000)
        os.utime(logs / name, (when, when))
    assert [p.name for p in space.old_logs(cache, now=NOW, days=30)] == ["old.log"]
    assert 20_000 < space.rest(cache) < MB
