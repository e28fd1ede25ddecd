# SPDX-License-Identifier: GPL-2.0-or-later
"""Real guests that hang, and a QEMU that is kept from running, told apart by their outcome."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from patchlab.errors import LostInstrument
from patchlab.guests import machine
from patchlab.model import Image, Lab, Root
from patchlab.record import BootRecord, Outcome
from tests.vm import faulty
from tests.vm.boots import check_start, leftovers

pytestmark = pytest.mark.vm

SOON = 5.0  # seconds for a check; the guest has ten more to say that it was too slow


@pytest.fixture
def hasty(lab: Lab) -> Lab:
    return replace(lab, limits=replace(lab.limits, check=SOON))


def places(record: BootRecord, *words: str) -> list[int]:
    """Where in the stored console the words first stand; -1 where they do not."""
    return [record.console.find(word) for word in words]


def outcomes(record: BootRecord) -> list[Outcome]:
    return [check.outcome for check in record.checks]


def test_an_agent_that_stopped_leaves_its_task_in_the_console(
    base: Image, guest_root: Root, hasty: Lab, tmp_path: Path
) -> None:
    record = faulty.boot(base, guest_root, hasty, tmp_path, faulty.STOPPED_AGENT)
    assert record.outcome is Outcome.TIMED_OUT
    assert record.reason == (
        "no answer to 'check' in 15 s; it listed its tasks over SSH; QEMU was terminated"
    )
    assert outcomes(record) == [Outcome.TIMED_OUT, Outcome.NOT_RUN]
    order = places(
        record, "lab: deadline passed", "sysrq: Show State", "task:python3", "lab: terminating QEMU"
    )
    assert -1 not in order
    assert order == sorted(order)
    assert not record.findings
    assert (tmp_path / "boot/console.log").read_bytes().decode(errors="replace") == record.console
    first, *_, last = record.console.splitlines()
    assert "Linux version" in first
    assert "terminating on signal 15" in last
    assert not leftovers()


def test_a_guest_whose_processes_all_stopped_is_asked_by_an_nmi(
    base: Image, guest_root: Root, hasty: Lab, tmp_path: Path
) -> None:
    record = faulty.boot(base, guest_root, hasty, tmp_path, faulty.STOPPED_PROCESSES)
    assert record.outcome is Outcome.TIMED_OUT, record.reason
    assert record.reason == (
        "no answer to 'check' in 15 s; SSH was dead, an NMI made it list its tasks; "
        "QEMU ended by itself"
    )
    order = places(
        record,
        "lab: deadline passed",
        "lab: SSH was dead: asking for its tasks by an NMI",
        "Kernel panic - not syncing: NMI",
        "task:sshd",
    )
    assert -1 not in order
    assert order == sorted(order)
    # The panic is the lab's own doing.
    assert not record.findings


def test_a_stopped_qemu_is_no_hang_of_the_guest(
    base: Image, guest_root: Root, lab: Lab, tmp_path: Path
) -> None:
    with (
        pytest.raises(LostInstrument, match=r"^QEMU was stopped for \d of [67] s: no answer to"),
        machine.boot(check_start(base), guest_root, lab.machine, lab.limits, tmp_path) as running,
    ):
        pid = faulty.qemu()
        with faulty.stopped(pid, 3):
            assert running.guest.hello(60)["cpus"] == "2"
        with faulty.stopped(pid, 60):
            running.guest.hello(6)
    assert not leftovers()
