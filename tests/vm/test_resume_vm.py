# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 of a run in its boots, and the same command again; `make prove` kills thirty times."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from patchlab.model import Image, Root
from patchlab.paths import Cache
from tests.proving import killing

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parents[2]
RUN = """
[run.short]
title = "One arm, killed twice"
base = "linux-6.12"
baseline = "base"
arms = ["base"]
features = ["virtio_pmem"]
fragments = []
"""


@pytest.fixture
def place(base: Image, guest_root: Root, cache: Cache) -> Iterator[killing.Place]:
    """The user's cache, and results of its own."""
    assert base.folder.is_dir() and guest_root.disk.is_file()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = (ROOT / "lab.toml").read_text()
        for old, new in (
            ('kernels = "kernels"', f'kernels = "{ROOT / "kernels"}"'),
            ('patches = ["patches"]', f'patches = ["{ROOT / "patches"}"]'),
            ("blocks = 5", "blocks = 2"),
            ("samples = 12", "samples = 2"),
        ):
            assert old in text
            text = text.replace(old, new)
        (folder / "lab").mkdir()
        (folder / "lab" / "lab.toml").write_text(text + RUN)
        (folder / "patchlab").symlink_to(cache.folder)
        yield killing.Place(folder, folder / "lab" / "lab.toml")
        (folder / "patchlab").unlink()


def test_a_killed_run_goes_on_and_makes_every_boot_once(place: killing.Place) -> None:
    words = ("run", "short", "--resume")
    with killing.guardian():
        first = killing.run(place, words, ("check boot", 4.0))
        assert first.code == -9 and first.stage == "check boot", first.said
        assert first.left == ()
        assert list(place.temporary.glob("patchlab-boot-*"))
        second = killing.run(place, words, ("bench boot", 8.0))
        assert second.code == -9 and second.stage == "bench boot", second.said
        assert second.left == ()
        assert "going on with run 1 (0 of 3 boots)" in second.said
        kept = killing.stored(place)
        made = [row.kind for row in kept if row.outcome != "lost"]
        assert made == ["check", *["bench"] * (len(made) - 1)], second.said
        shown = killing.run(place, ("report", "1"), None)
        assert f"{3 - len(made)} of 3 boots are missing" in shown.said, shown.said
        third = killing.run(place, words, None)
    assert third.code == 0, third.said
    assert killing.bad_results(place, kept) == []
    assert killing.incomplete(killing.stored(place), ["base"], 2) == []
    assert list(place.temporary.iterdir()) == []
    with closing(sqlite3.connect(place.results / "lab.sqlite")) as connection:
        runs = connection.execute("SELECT count(*), min(finished) > '' FROM runs").fetchone()
        assert runs == (1, 1)
        sat = connection.execute("SELECT sum(seconds) FROM sittings").fetchone()[0]
        (total,) = connection.execute("SELECT seconds FROM runs").fetchone()
        assert connection.execute("SELECT count(*) FROM sittings").fetchone() == (3,)
    assert 0 <= total - sat < 10
    # What only QEMU is to blame for was made once more, and both attempts are kept.
    attempts = {
        f"{row.kind}-{max(row.block, 0):03d}-{row.attempt}" for row in killing.stored(place)
    }
    assert {"check-000-1", "bench-000-1", "bench-001-1"} <= attempts
    assert {path.name for path in (place.results / "run-0001").iterdir()} == attempts
    assert (place.results / "report-0001.html").is_file()
