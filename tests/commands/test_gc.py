# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import argparse
import io
import json
import os
import time
from pathlib import Path

import pytest
from rich.console import Console

from patchlab.commands import doctor, gc
from patchlab.commands.desk import Desk
from patchlab.paths import Cache
from patchlab.progress import Silent
from patchlab.store import content

MB = 1 << 20
DAY = 86400.0


def desk(cache: Cache) -> tuple[Desk, io.StringIO]:
    out = io.StringIO()
    place = cache.folder.parent / "lab.toml"
    return Desk(place, cache, Console(file=out, width=160), Silent(), ("runner.py",)), out


def collect(cache: Cache, *words: str) -> str:
    parser = argparse.ArgumentParser()
    gc.arguments(parser)
    where, out = desk(cache)
    assert gc.run(parser.parse_args(words), where) == 0
    return out.getvalue()


def entry(cache: Cache, room: str, key: str, days: float) -> Path:
    folder = cache.room(room) / key
    folder.mkdir()
    (folder / "file").write_bytes(b"\1" * MB)
    os.utime(folder, (time.time() - days * DAY,) * 2)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """Three images, the youngest one in use; a log; what a killed build left."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    cache = Cache(tmp_path / "cache")
    for key, days in (("ancient", 99), ("old", 20), ("young", 1)):
        entry(cache, "images", key, days)
    (cache.room("tmp") / "images=lost=x1").mkdir()
    log = cache.room("logs") / "build.log"
    log.write_text("make\n")
    os.utime(log, (time.time() - 99 * DAY,) * 2)
    return cache


def left(cache: Cache) -> list[str]:
    return sorted(path.name for path in (cache.folder / "images").iterdir())


def test_by_age(cache: Cache) -> None:
    said = collect(cache)
    assert left(cache) == ["old", "young"]
    assert "removed images/ancient: 1 MB, not used for 99 days" in said
    assert "half-done work of a killed run" in said
    assert not list((cache.folder / "tmp").iterdir())
    assert not list((cache.folder / "logs").iterdir())
    assert "the cache holds 2 MB in entries, 1 MB less" in said


def test_by_size_keeps_what_was_used_last(cache: Cache) -> None:
    collect(cache, "--days", "1000", "--size", "2M")
    assert left(cache) == ["young"]  # a folder takes room too


def test_a_dry_run_says_the_same_and_removes_nothing(cache: Cache) -> None:
    said = collect(cache, "--size", "0", "--dry-run")
    assert left(cache) == ["ancient", "old", "young"]
    assert said.count("would remove images/") == 3
    assert "would remove 1 logs" in said
    assert list((cache.folder / "tmp").iterdir())
    assert collect(cache, "--size", "0").replace("removed", "would remove").count("remove") == (
        said.count("remove")
    )
    assert left(cache) == []


def test_what_is_in_use_is_kept_and_named(cache: Cache) -> None:
    content.use(cache.folder / "images", "ancient")
    os.utime(cache.folder / "images/ancient", (0, 0))
    said = collect(cache, "--size", "0")
    assert left(cache) == ["ancient"]
    assert "kept images/ancient: in use by a live process" in said
    assert "stays above 0 MB" in said


def test_a_private_folder_is_reported_and_left(cache: Cache) -> None:
    folder = cache.folder.parent / "tmp" / "patchlab-boot-xyz"
    folder.mkdir()
    assert f"kept {folder}: of a killed boot" in collect(cache, "--size", "0")
    assert folder.is_dir()


@pytest.mark.parametrize(
    "words",
    [
        ("--size", "10"),
        ("--size", "10GB"),
        ("--size", "-1G"),
        ("--days", "-1"),
        ("--days", "nan"),
        ("--days", "soon"),
    ],
)
def test_nonsense_is_refused(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    gc.arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(words)
    said = capsys.readouterr().err
    assert words[0] in said
    if words[0] == "--days":
        assert f"'{words[1]}' is no number of days, 0 or more: 7, 0.5" in said


def test_doctor_says_what_the_cache_holds(cache: Cache) -> None:
    where, out = desk(cache)
    doctor.run(argparse.Namespace(json=True), where)
    said = json.loads(out.getvalue())["cache"]
    images = next(room for room in said["rooms"] if room["name"] == "images")
    assert images["entries"] == 3
    assert images["size"] == pytest.approx(3 * MB, rel=0.05)
    assert said["gc_frees"] == pytest.approx(MB, rel=0.05)
    assert said["free"] > 0
    where, out = desk(cache)
    doctor.run(argparse.Namespace(json=False), where)
    assert "runner.py gc would free 1 MB" in out.getvalue()
