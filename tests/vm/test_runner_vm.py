# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py with real guests: a whole run, a shell, gdb, and ^C at every stage."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchlab.model import Image, Root
from patchlab.paths import Cache
from tests.vm.boots import leftovers

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parents[2]
CONTROL = "fuse-writable-mmap@control"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab with two arms, four short blocks and one feature, whose results are its own.

    test_boot.py asks the same arms for the other feature's checks and metrics.
    """
    folder = tmp_path_factory.mktemp("lab")
    text = (ROOT / "lab.toml").read_text()
    for old, new in (
        ('kernels = "kernels"', f'kernels = "{ROOT / "kernels"}"'),
        ('patches = ["patches"]', f'patches = ["{ROOT / "patches"}"]'),
        ("blocks = 5", "blocks = 4"),
        ("samples = 12", "samples = 3"),
        ("warmup = 2", "warmup = 1"),
        ('  "fuse-writable-mmap@v2",\n  "fuse-writable-mmap@v3",\n', ""),
        ('["fuse_writable_mmap", "virtio_pmem"]', '["virtio_pmem"]'),
    ):
        assert old in text
        text = text.replace(old, new)
    lab = folder / "lab.toml"
    lab.write_text(text)
    return lab


def runner(lab: Path, *words: str, seconds: float = 900) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "runner.py"), "--lab", str(lab), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False)


def test_a_run_compares_control_and_base_and_can_be_reported_again(
    small: Path, base: Image, control: Image, guest_root: Root
) -> None:
    assert base.folder.is_dir() and control.folder.is_dir() and guest_root.disk.is_file()
    said = runner(small, "run", "--json")
    assert said.returncode == 0, said.stderr
    document = json.loads(said.stdout)
    (comparison,) = document["comparisons"]
    checks = {check["id"]: check for check in comparison["checks"]}
    assert set(checks) == {"P1", "P2", "P3", "P4"}
    assert {check["candidate"]["outcome"] for check in checks.values()} == {"passed"}
    metrics = {m["metric"]["id"]: m for m in comparison["metrics"]}
    # The control changes nothing on this path, and icount can tell.
    touch = metrics["P.first_touch"]
    assert touch["unit"] == "instructions/page"
    assert touch["blocks"] == 4
    assert abs(touch["ratio"]) < 0.01
    page = (small.parent / "results" / "report.html").read_text()
    assert CONTROL in page and "<script" not in page
    again = runner(small, "compare", "base", CONTROL, "--format", "json")
    assert json.loads(again.stdout)["comparisons"] == [comparison]
    assert runner(small, "report", "--format", "text").stdout.count("P.first_touch") >= 1


def test_shell_runs_a_command_in_the_guest_with_the_pmem_device_mounted(small: Path) -> None:
    said = runner(small, "shell", "base", "--", "grep", "pmem0", "/proc/mounts")
    assert said.returncode == 0, said.stderr
    assert "/mnt/pmem0 xfs" in said.stdout
    assert "dax=always" in said.stdout


def test_gdb_has_the_guest_and_its_symbols(small: Path) -> None:
    if shutil.which("gdb") is None:
        pytest.fail("gdb is not installed: apt-get install gdb")
    said = runner(
        small, "gdb", "base", "--", "-batch", "-ex", "info symbol fuse_file_mmap", "-ex", "p $rip"
    )
    assert "fuse_file_mmap in section .text" in said.stdout, said.stdout + said.stderr
    assert "$1 = " in said.stdout


@pytest.fixture
def other_cache(tmp_path: Path, base: Image) -> Iterator[Path]:
    """An XDG_CACHE_HOME whose rooms are linked from the user's cache, one by one, by the test."""
    assert base.folder.is_dir()
    folder = tmp_path / "patchlab"
    folder.mkdir()
    yield tmp_path
    for room in folder.iterdir():
        if room.is_symlink():
            room.unlink()
    shutil.rmtree(tmp_path, ignore_errors=True)


def processes(mark: str) -> list[str]:
    """Command lines of live processes that name ``mark``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if mark in line:
                found.append(line)
    return found


@pytest.mark.parametrize(
    ("stage", "rooms"),
    [
        ("unpack", ()),
        ("build base", ("sources",)),
        ("guest root", ("sources", "trees", "images")),
        # Just before the guest is started, and while it runs.
        ("check boots: started", ("sources", "trees", "images", "roots", "hosts")),
        ("check boot of base: started", ("sources", "trees", "images", "roots", "hosts")),
    ],
)
def test_interrupt_leaves_nothing_behind(
    stage: str, rooms: tuple[str, ...], small: Path, other_cache: Path, cache: Cache
) -> None:
    for room in rooms:
        (other_cache / "patchlab" / room).symlink_to(cache.room(room))
    argv = [sys.executable, str(ROOT / "runner.py"), "--lab", str(small), "run"]
    env = os.environ | {"XDG_CACHE_HOME": str(other_cache)}
    log = other_cache / "said"
    with (
        log.open("w") as said,
        subprocess.Popen(argv, env=env, stdout=said, stderr=said) as process,
    ):
        limit = time.monotonic() + 300
        while stage not in log.read_text() and time.monotonic() < limit:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
    assert code == 130, log.read_text()
    assert stage in log.read_text()
    assert processes(str(other_cache)) == []
    assert not leftovers()
    # What is left in tmp/ would be known as half-done; what has a name is whole.
    for room in ("images", "trees", "roots"):
        folder = other_cache / "patchlab" / room
        assert folder.is_symlink() or not folder.is_dir() or not list(folder.iterdir())
