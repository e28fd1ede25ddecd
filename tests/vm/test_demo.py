# SPDX-License-Identifier: GPL-2.0-or-later
"""The sound device of guest/demos, started as docs/fuse-direct-mmap.md says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from patchlab.model import Image

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parents[2]
DEMO = "/run/lab/guest/demos/sound.py"
PERIODS = 12


def play(variant: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The demo in a guest of ``variant``; its exit code is the runner's."""
    argv = [sys.executable, str(ROOT / "runner.py"), "shell", variant, "--", *words]
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=1800, check=False, stdin=subprocess.DEVNULL
    )


def story(said: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Its lines by their first words, which are at most 14 characters long."""
    return {line[:15].strip(): line[15:] for line in said.stdout.splitlines()}


@pytest.mark.parametrize(
    ("revision", "dialect", "requests", "notifications"),
    [
        (
            "v2",
            "descriptors, negotiated",
            "OPEN 1, MMAP 1, MMAP_COMMIT 1, WRITE 9, MUNMAP 1, RELEASE 1",
            "none: the server maps the region's descriptor",
        ),
        (
            "v3",
            "ids",
            f"OPEN 1, MMAP 1, WRITE 9, NOTIFY_REPLY {PERIODS}, MUNMAP 1, RELEASE 1",
            f"RETRIEVE {PERIODS} (a period each), STORE {PERIODS} (the position)",
        ),
    ],
)
def test_a_player_is_heard_through_the_ring_that_it_mapped(
    revision: str, dialect: str, requests: str, notifications: str
) -> None:
    wav = "/root/tone.wav"
    said = play(f"fuse-direct-mmap@{revision}", "python3", DEMO, wav)
    assert said.returncode == 0, said.stdout + said.stderr
    told = story(said)
    assert told["direct mmap"] == dialect
    assert told["requests"] == requests
    assert told["notifications"] == notifications
    assert told["payload"].startswith("no READ and no WRITE with samples")
    assert told["played"].startswith(f"{PERIODS} periods")
    assert told["samples"] == "equal, bit by bit"
    assert told["rendered"] == told["heard"]
    assert told["written"] == wav


def test_a_kernel_without_the_feature_says_that_it_cannot_be_mapped(base: Image) -> None:
    assert base.folder.is_dir()
    said = play("base", "python3", DEMO)
    assert said.returncode == 10, said.stdout + said.stderr
    told = story(said)
    assert told["direct mmap"] == "not in this kernel"
    assert told["mmap"] == "ENODEV: /dev/patchlab-dsp cannot be mapped here"
    assert "samples" not in told
    assert "Traceback" not in said.stderr
