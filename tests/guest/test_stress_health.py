# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a kernel's log, kmemleak's report and the counts, on text that kernels wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from guest import faults, health
from guest.health import Held
from guest.words import CheckError

_CONSOLE = Path(__file__).resolve().parents[1] / "data" / "console"
_LOUD = (
    "kasan.log", "lockdep-circular.log", "lockdep-atomic.log", "lockdep-sleeping.log",
    "hung-task.log", "oops-null.log", "oops-gpf.log", "warn.log", "refcount.log", "ubsan.log",
    "list-bug.log", "rcu-stall.log", "bad-page.log", "soft-lockup.log",
)  # fmt: skip


def _lines(name: str) -> list[str]:
    # As /dev/kmsg gives them: without the stamp.
    text = (_CONSOLE / name).read_text("utf-8", "replace")
    return [line.partition("] ")[2] or line for line in text.splitlines()]


@pytest.mark.parametrize("name", _LOUD)
def test_every_kind_of_report_is_seen(name: str) -> None:
    assert health.splats(_lines(name))


def test_a_clean_boot_is_clean() -> None:
    assert health.splats(_lines("clean.log")) == []


def test_an_injected_fault_is_no_report() -> None:
    assert (
        health.splats(["FAULT_INJECTION: forcing a failure.\\x0aname failslab, interval 1"]) == []
    )


def test_a_record_of_user_space_is_not_the_kernels() -> None:
    assert health.record_text("4,100,200,-;WARNING: CPU: 0\n KEY=x\n") == "WARNING: CPU: 0"
    assert health.record_text("12,100,200,-;WARNING: said a daemon\n") == ""


def test_kmemleak_reports_are_taken_apart() -> None:
    report = """unreferenced object 0xffff888003b2a480 (size 64):
  comm "python3", pid 94, jiffies 4294945127
  backtrace (crc 0):
    __kmalloc_cache_noprof+0x1e4/0x2c0
    fuse_dev_do_write+0x1e4/0x2c0
unreferenced object 0xffff888003b2a4c0 (size 32):
  comm "swapper/0", pid 1, jiffies 4294892000
  backtrace (crc 1):
    do_one_initcall+0x51/0x2c0
"""
    found = health.leaks(report)
    assert list(found) == ["0xffff888003b2a480", "0xffff888003b2a4c0"]
    assert "fuse_dev_do_write" in found["0xffff888003b2a480"]
    assert health.leaks("") == {}


def test_only_what_there_is_more_of_is_a_leak() -> None:
    before = Held(8, 36, 600, ("40",))
    assert health.differences(before, Held(7, 30, 590, ())) == []
    assert health.differences(before, Held(9, 36, 601, ("40", "41"))) == [
        "fds: 8 before, 9 after",
        "shmem inodes: 600 before, 601 after",
        "connections: ('40',) before, ('40', '41') after",
    ]


def test_the_log_names_the_injector() -> None:
    lines = [
        "FAULT_INJECTION: forcing a failure.\\x0aname failslab, interval 1, probability 0, space 0",
        "fuse: something else with a name in it",
        "FAULT_INJECTION: forcing a failure.\\x0aname fail_usercopy, interval 1, probability 0",
    ]
    assert faults.named(lines) == ["failslab", "fail_usercopy"]


def test_an_enumeration_ends_where_the_fault_is_not_reached() -> None:
    tally = faults.enumerate_faults("a call", lambda nth: (nth <= 7, nth % 2 == 0), list)
    assert (tally.fired, tally.failed) == (7, 3)


def test_an_enumeration_without_an_end_and_one_with_a_report_fail() -> None:
    with pytest.raises(CheckError, match="still goes off"):
        faults.enumerate_faults("a call", lambda _: (True, True), list)
    with pytest.raises(CheckError, match=r"N = 1:.*\n.*\n.*refcount_t"):
        faults.enumerate_faults(
            "a call", lambda _: (True, True), lambda: ["refcount_t: underflow; use-after-free."]
        )
