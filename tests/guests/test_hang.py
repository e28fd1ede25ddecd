# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done with a guest that is late: the marks in its console, and QEMU's monitor."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchlab import proc
from patchlab.guests import command_line, hang
from patchlab.guests.guest import Console, GuestCrashed, GuestTimedOut
from patchlab.guests.vigil import Vigil

QEMU = shutil.which(command_line.QEMU)
PANIC = "[    1.000000] Linux version 6.12.0\n[    2.000000] Kernel panic - not syncing: Oops\n"


def test_marks_stand_between_the_guest_s_lines_in_their_order(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_text("one\ntwo")
    console = Console(log)
    assert console.mark("first") == 7
    assert console.mark("second") == 7
    with log.open("a") as more:
        more.write(" goes on\nthree\n")
    console.mark("third")
    console.keep_marks()
    assert log.read_text().splitlines() == [
        *("one", "two", "lab: first", "lab: second", " goes on", "three", "lab: third")
    ]


def test_a_console_without_marks_is_left_alone(tmp_path: Path) -> None:
    Console(tmp_path / "none.log").keep_marks()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A real QEMU without a machine: its monitor's socket, and its process."""
    if QEMU is None:
        pytest.skip("needs QEMU")
    socket = tmp_path / "qmp.sock"
    bare = ["-machine", "none", "-nodefaults", "-display", "none"]
    argv = [QEMU, *bare, "-qmp", f"unix:{socket},server=on,wait=off"]
    with proc.spawn(argv, grace=0) as process:
        limit = time.monotonic() + 30
        while not socket.exists() and time.monotonic() < limit:
            assert process.poll() is None
        yield socket, process.pid


def test_the_monitor_answers_and_refuses(monitor: tuple[Path, int]) -> None:
    assert hang.command(monitor[0], "query-status")["status"] == "running"
    with pytest.raises(ValueError, match="no-such-thing"):
        hang.command(monitor[0], "no-such-thing")


def test_a_monitor_that_nobody_serves_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        hang.command(tmp_path / "none.sock", "query-status")


def suspect(monitor: tuple[Path, int], log: Path, watch: Vigil) -> hang.Suspect:
    [process] = [one for one in proc._LIVE if one.pid == monitor[1]]
    return hang.Suspect(Console(log), process, watch, monitor[0])


def test_a_guest_that_was_dead_already_is_no_hang(
    monitor: tuple[Path, int], tmp_path: Path
) -> None:
    log = tmp_path / "console.log"
    log.write_text(PANIC)
    with Vigil(monitor[1]) as watch:
        ended = hang.escalate(GuestTimedOut("no answer", 5), suspect(monitor, log, watch))
    assert isinstance(ended, GuestCrashed)
    assert str(ended) == "panic no answer"


def test_a_qemu_without_a_guest_that_answers_is_terminated(
    monitor: tuple[Path, int], tmp_path: Path
) -> None:
    """There is nothing behind its NMI: the monitor says so, and it ends by SIGTERM."""
    log = tmp_path / "console.log"
    log.write_text("[    1.000000] Linux version 6.12.0\n")
    with Vigil(monitor[1]) as watch:
        one = suspect(monitor, log, watch)
        ended = hang.escalate(GuestTimedOut("no answer", 0), one)
    assert isinstance(ended, GuestTimedOut)
    assert str(ended).startswith("no answer; there was no SSH yet, ")
    assert str(ended).endswith("; QEMU was terminated")
    assert ended.heard == log.stat().st_size
    one.console.keep_marks()
    marks = [line for line in log.read_text().splitlines() if line.startswith("lab: ")]
    assert marks[0] == "lab: deadline passed: no answer"
    assert marks[-1] == "lab: terminating QEMU"


def test_a_stopped_monitor_is_given_up(monitor: tuple[Path, int]) -> None:
    os.kill(monitor[1], signal.SIGSTOP)
    with pytest.raises(OSError, match="timed out"):
        hang.command(monitor[0], "query-status", patience=0.2)
