# SPDX-License-Identifier: GPL-2.0-or-later
"""The processes that checks use beside their own."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time

import pytest

from guest.checking import error_of, fate, forked, puppet
from guest.words import CheckError


def test_a_puppet_keeps_its_state_and_reports_errnos() -> None:
    kept: list[int] = []

    def add(number: int) -> int:
        kept.append(number)
        return sum(kept)

    with puppet({"add": add, "fail": lambda: os.close(-1)}) as other:
        assert (other.do("add", 3), other.do("add", 4)) == (3, 7)
        assert other.do("fail") == {"errno": errno.EBADF}
    assert kept == []


def test_a_puppet_can_be_killed_while_it_waits() -> None:
    with puppet({"wait": signal.pause}) as other:
        other.start("wait")
        with pytest.raises(TimeoutError):
            other.result(0.05)
        took = other.kill()
        assert took is not None
        assert took < 5
        with pytest.raises(CheckError, match="the other process is gone"):
            other.result()


def test_a_puppet_waits_when_it_sleeps_and_is_not_only_late() -> None:
    def spin() -> None:
        limit = time.monotonic() + 1
        while time.monotonic() < limit:
            pass

    with puppet({"wait": signal.pause, "spin": spin, "quick": int}) as other:
        other.start("spin")
        assert not other.waits()
        other.result()
        # A busy host has not let it begin yet.
        os.kill(other.pid, signal.SIGSTOP)
        other.start("quick")
        late = threading.Timer(1, os.kill, (other.pid, signal.SIGCONT))
        late.start()
        assert not other.waits()
        late.join()
        other.result()
        other.start("wait")
        assert other.waits()


def test_forked_gives_the_number_and_fate_the_signal() -> None:
    with forked(lambda: errno.EIO) as ended:
        assert ended() == errno.EIO
    assert fate(lambda: None) == "no signal"
    assert fate(lambda: os.kill(os.getpid(), signal.SIGBUS)) == "SIGBUS"


def test_error_of_gives_the_errno() -> None:
    assert error_of(lambda: os.close(-1)) == errno.EBADF
    assert error_of(lambda: None) == 0
