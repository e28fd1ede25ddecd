# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/speed.md is what docs/evidence/speed.json holds, and the bench never fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import page, picture, record, watch
from benchmarks.__main__ import DOCS, EVIDENCE, take
from benchmarks.bench import LAB, REPOSITORY, Bench, edit_line, lab_of, scratch, without_images
from benchmarks.figures import FIGURES, Figure
from benchmarks.first_reply import vng_argv
from benchmarks.record import Bar, Found, Row, Taken
from patchlab import config
from patchlab.errors import MissingTool, UsageError
from patchlab.paths import Cache
from patchlab.progress import Silent
from patchlab.store import content

PATCHES = REPOSITORY / "patches" / "fuse-direct-mmap" / "v3"
TEXT = (DOCS / "speed.md").read_text(encoding="utf-8")
ROWS = (
    Row("it took", "s", (11.0, 14.5, 12.5), 12),
    Row("times faster", "×", (1.9,), 1.8, at_least=True),
    Row("not there", "s", aim=1, missing="no such program"),
    Row("only shown", "s", (0.03125,)),
)
BARS = (Bar(0, "build", "build", 0, 20.0), Bar(1, "coming up", "a <b> & c", 20.0, 33.0))


def taken(name: str, found: Found, unmeasured: str = "") -> Taken:
    host = {"cpu": "a cpu"}
    when = "2026-01-02T03:04:05+00:00"
    return Taken(name, found, unmeasured, when, 9.0, "c0ffee", host, (0.5, 1, 2), 0.3, False)


# ---------------------------------------------------------------- the page and the evidence


def test_the_page_shows_what_the_evidence_holds() -> None:
    kept = record.load(EVIDENCE)
    assert page.filled(TEXT, kept) == TEXT, "python -m benchmarks --page writes it again"
    drawn = DOCS / page.PICTURE
    assert (drawn.read_text("utf-8") if drawn.is_file() else "") == page.drawing(kept)


def test_every_figure_is_explained() -> None:
    assert re.findall(r"^### ([\w-]+)$", TEXT, re.MULTILINE) == list(FIGURES)


def test_evidence_survives_the_file(tmp_path: Path) -> None:
    all_ = {name: taken(name, Found(ROWS, BARS)) for name in ("edit", "growth")}
    record.store(tmp_path / "speed.json", all_.values())
    assert record.load(tmp_path / "speed.json") == all_


def test_a_damaged_evidence_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    file.write_text("{}")
    with pytest.raises(UsageError, match=r"speed\.json"):
        record.load(file)


def test_a_row_says_its_median_extremes_and_whether_it_holds() -> None:
    took, faster, absent, shown = ROWS
    assert record.shown(took) == "12.5 s (3: 11.0 to 14.5)"
    assert (record.aim(took), record.word(took)) == ("at most 12 s", "falls short, 4 % off")
    assert (record.aim(faster), record.word(faster)) == ("at least 1.8 ×", "holds")
    assert record.shown(absent) == "not measured: no such program"
    assert record.word(absent) == "not measured"
    assert (record.shown(shown), record.word(shown)) == ("0.031 s", "")


def test_the_table_has_a_line_for_every_figure_also_for_those_not_taken() -> None:
    all_ = {
        "variant": taken("variant", Found(ROWS)),
        "two-guests": taken("two-guests", Found(()), "this host has 1 core | no more"),
    }
    lines = page.tables(all_).splitlines()
    assert "| [cold-build](#cold-build) | not taken yet | | | |" in lines
    short = "| 12.5 s (3: 11.0 to 14.5) | at most 12 s | **falls short, 4 % off** |"
    assert f"| [variant](#variant) | it took {short}" in lines
    assert any("this host has 1 core ¦ no more" in line for line in lines)
    assert any("30 % of the cores in use (busy!)" in line for line in lines)


def test_the_picture_opens_by_itself_and_escapes() -> None:
    root = ElementTree.fromstring(str(picture.timeline(BARS, 25)))
    texts = [text for text in root.itertext() if text.strip()]
    assert "a <b> & c: 13.0 s" in texts
    assert "aim: 25 s" in texts
    assert not any("href" in name for element in root.iter() for name in element.attrib)
    ends = [
        float(e.attrib["x"]) + float(e.attrib["width"])
        for e in root.iter()
        if "x" in e.attrib and "width" in e.attrib
    ]
    assert max(ends) <= picture._WIDTH


# ---------------------------------------------------------------- never fails


def bench(tmp_path: Path) -> Bench:
    return Bench(config.load(LAB), Cache(tmp_path), Silent(), tmp_path / "results", True, 0.1)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            MissingTool("vng: no such program", hint="make setup"),
            "vng: no such program (make setup)",
        ),
        (ZeroDivisionError("no boots"), "a bug in the bench: ZeroDivisionError: no boots"),
    ],
)
def test_what_cannot_be_taken_says_why(error: Exception, said: str, tmp_path: Path) -> None:
    def broken(_: Bench) -> Found:
        raise error

    one = take("broken", Figure("breaks", broken), bench(tmp_path), "c0ffee", {})
    assert (one.unmeasured, one.found.rows) == (said, ())
    assert len(one.load) == 3
    assert 0 <= one.busy <= 1


# ---------------------------------------------------------------- throw-away places


def test_a_lab_of_copied_revisions_differs_by_the_edited_line() -> None:
    with lab_of({"v1": PATCHES, "v2": PATCHES}, "fuse-direct-mmap", blocks=2) as file:
        edit_line(file.parent / "patches" / "speed" / "v2", '"fuse-region"', '"fuse-region-0"')
        lab = config.load(file)
        before, after = (revision.patches for revision in lab.series["speed"].revisions)
        assert lab.sampling.blocks == 2
        assert [arm.name for arm in lab.runs["speed"].arms] == ["speed@v1", "speed@v2"]
        changed = [
            (a.file, b.file) for a, b in zip(before, after, strict=True) if a.sha256 != b.sha256
        ]
        ((one, other),) = changed
        lines = zip(one.read_text().split("\n"), other.read_text().split("\n"), strict=True)
        assert sum(a != b for a, b in lines) == 1
    assert not file.exists()


def test_an_edit_that_finds_no_line_says_so(tmp_path: Path) -> None:
    (tmp_path / "0001.patch").write_text(" \t-EINVAL;\n-\treturn -EINVAL;\n")
    with pytest.raises(UsageError, match="EINVAL"):
        edit_line(tmp_path, "EINVAL", "EIO")


def test_a_cache_without_images_shows_the_users_trees_and_leaves_them(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "patchlab")
    (cache.room("trees") / "key").mkdir()
    (cache.room("images") / "key").mkdir()
    with without_images(cache) as lent:
        assert (lent.room("trees") / "key").is_dir()
        assert not any(lent.room("images").iterdir())
        (lent.room("images") / "new").mkdir()
    assert [path.name for path in cache.room("images").iterdir()] == ["key"]
    assert (cache.room("trees") / "key").is_dir()
    assert not lent.folder.exists()


def test_what_a_killed_bench_left_is_known_to_the_cache(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "patchlab")
    with scratch(cache) as folder:
        assert content.clean_leftovers(cache.folder) == ()
        assert folder.is_dir()
    left = cache.room("tmp") / folder.name
    left.mkdir()
    assert content.clean_leftovers(cache.folder) == (left,)


# ---------------------------------------------------------------- watching


def test_a_make_below_a_process_is_seen_and_its_absence_too(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("all:\n\tread line\n")
    shell = 'make -f "$0"; read line'
    runner = subprocess.Popen(
        ["sh", "-c", shell, str(tmp_path / "Makefile")], stdin=subprocess.PIPE
    )
    assert runner.stdin is not None
    with watch.watched(runner.pid) as seen:
        wait_for(lambda: seen.wall.get(watch.MAKE, 0) > 0.1)
        runner.stdin.write(b"\n")
        runner.stdin.flush()
        alone = seen.wall.get(watch.NEITHER, 0)
        wait_for(lambda: seen.wall.get(watch.NEITHER, 0) > alone + 0.1)
        runner.communicate(b"\n")
    assert 0 < seen.neither < 1


def wait_for(true: Callable[[], bool], seconds: float = 10) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_the_processor_time_of_a_process_is_its_own() -> None:
    burn = "import time\nwhile time.process_time() < {}: pass"
    before = watch.cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-S", "-c", burn.format(0.4)], check=True)
    exec(burn.format(time.process_time() + 0.1))
    assert 0.05 <= watch.cpu_seconds(os.getpid()) - before < 0.4


def test_the_bare_guest_has_the_memory_and_processors_of_the_labs() -> None:
    (command,) = (word for word in vng_argv(Path("/a b/bzImage"), 2, 1 << 30) if "vng" in word)
    assert "--run '/a b/bzImage'" in command
    assert "--cpus 2 --memory 1024M -- python3 -c pass" in command
