# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is to blame for a deadline that ran out: the guest, or what kept QEMU from running."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import pytest

from patchlab import proc
from patchlab.guests import vigil
from patchlab.guests.vigil import Look, Vigil

SECOND = 1_000_000_000


def looks(states: str, *, ran: int = SECOND // 10, queued: int = 0) -> list[Look]:
    """One look a second, at a QEMU that ran and waited so many nanoseconds of each."""
    return [Look(10.0 + n, 500.0 + n, s, n * ran, n * queued) for n, s in enumerate(states)]


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (looks("RSSRSSSSSR"), ""),
        (looks("S" * 20, ran=1000), ""),
        (looks("RSS", ran=0), ""),
        (looks("R" * 21, queued=SECOND // 2), ""),
        (looks("RSSTTTTTTTT"), "QEMU was stopped for 7 of 10 s"),
        (looks("RSSTTTTSSSS"), "QEMU was stopped for 4 of 10 s"),
        (looks("S" * 31, ran=0), "QEMU got no CPU time for 30 s (state S)"),
        (
            looks("R" * 21, queued=8 * SECOND // 10),
            "the host was too busy: QEMU waited for a CPU for 16 of 20 s",
        ),
        ([], ""),
    ],
)
def test_a_guest_is_blamed_only_when_it_had_its_time(seen: Sequence[Look], words: str) -> None:
    assert vigil.blame(seen) == words


def test_a_host_that_was_suspended_is_told_from_a_clock_that_was_set() -> None:
    before, after = Look(10, 500, "S", 0), Look(11, 801, "S", SECOND)
    assert vigil.blame([before, after]) == "the host was suspended for 300 s"
    assert vigil.blame([before, Look(11, 501, "S", SECOND)]) == ""


def test_where_the_kernel_counts_no_cpu_time_nobody_is_blamed_for_it() -> None:
    seen = [Look(float(n), float(n), "S") for n in range(60)]
    assert vigil.blame(seen) == ""


def test_a_real_process_is_seen_working_stopped_and_gone() -> None:
    counting = ["sh", "-c", "while :; do :; done"]
    with proc.spawn(counting, grace=0) as process:
        box = process.pid
        with Vigil(box) as watch:
            first = vigil.cpu_time(box)[0]
            assert watch.blame(60) == ""
            os.kill(box, signal.SIGSTOP)
            while vigil.state(box) != "T":
                pass
        assert first is not None
        assert (vigil.cpu_time(box)[0] or 0) >= first
        os.kill(box, signal.SIGCONT)
    assert vigil.state(box) == ""


def test_the_family_of_a_process_ends_with_its_youngest() -> None:
    with proc.spawn(["sh", "-c", "sh -c 'sleep 60; :'; :"], grace=0) as process:
        while len(found := vigil.family(process.pid)) < 3:
            pass
        assert found[0] == process.pid
        assert vigil.family(found[-1]) == (found[-1],)
        os.kill(found[-1], signal.SIGKILL)
