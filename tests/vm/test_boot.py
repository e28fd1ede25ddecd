# SPDX-License-Identifier: GPL-2.0-or-later
"""Real boots: what a user is told of a kernel that works, one that lacks the feature, one that
dies, and an instrument that breaks."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from patchlab.errors import LostInstrument
from patchlab.guests import command_line, hang, machine
from patchlab.guests.guest import AgentError, AgentRefused, GuestCrashed
from patchlab.model import Image, Lab, Root
from patchlab.record import BootKind, BootRecord, Clock, Outcome
from patchlab.runs import features
from patchlab.verdicts.levels import NS_PER_INSTRUCTION
from tests.vm.boots import boot, check_start, leftovers, surprises, task

pytestmark = pytest.mark.vm

RUBBISH = "import sys\nfor line in sys.stdin: print('<html>not an answer</html>', flush=True)\n"


def outcomes(record: BootRecord) -> dict[str, Outcome]:
    return {check.id: check.outcome for check in record.checks}


def test_base_fails_the_checks_that_were_seen_red_on_it_and_no_others(
    base: Image, guest_root: Root, lab: Lab, catalogue: features.Catalogue, tmp_path: Path
) -> None:
    record = boot(task(check_start(base), catalogue), guest_root, lab, tmp_path)
    assert record.outcome is Outcome.PASSED, record.reason
    seen = {check.id: check for check in record.checks}
    assert set(seen) == {check.id for check in catalogue.checks}
    assert surprises("base", catalogue.checks, seen) == {}
    assert Outcome.UNSUPPORTED not in outcomes(record).values()
    assert record.facts["cpus"] == "2"
    assert not record.findings


def test_control_has_no_shared_writable_maps(
    control: Image, guest_root: Root, lab: Lab, catalogue: features.Catalogue, tmp_path: Path
) -> None:
    record = boot(task(check_start(control), catalogue), guest_root, lab, tmp_path)
    assert record.outcome is Outcome.PASSED, record.reason
    seen = outcomes(record)
    assert {seen[i] for i in seen if i.startswith("B")} == {Outcome.UNSUPPORTED}
    assert {seen[i] for i in seen if i.startswith("P")} == {Outcome.PASSED}
    assert "ENODEV" in next(check.seen for check in record.checks if check.id == "B1")


def test_bench_boot_measures_every_metric_in_instructions(
    base: Image, guest_root: Root, lab: Lab, catalogue: features.Catalogue, tmp_path: Path
) -> None:
    few = replace(lab, sampling=replace(lab.sampling, samples=4, warmup=1))
    start = command_line.Start(base, BootKind.BENCH, Clock.ICOUNT, 1)
    fit = features.Catalogue((), tuple(m for m in catalogue.metrics if Clock.ICOUNT in m.clocks))
    record = boot(task(start, fit), guest_root, few, tmp_path)
    assert record.outcome is Outcome.PASSED, record.reason
    assert record.unmeasured == ()
    assert record.facts["cpus"] == "1"
    for metric in fit.metrics:
        samples = [s for s in record.samples if s.metric == metric.id]
        assert [s.warmup for s in samples] == [True] + [False] * 4
        awake = [s.value / NS_PER_INSTRUCTION for s in samples if not (s.warmup or s.idle)]
        assert len(awake) >= 3, f"{metric.id} slept"
        # Instructions repeat, where a wall clock under load would not; a stray sample is what
        # the median is for.
        low, *_, high = sorted(awake)[:3]
        assert high / low < 1.1, f"{metric.id}: {awake}"


def test_a_kernel_that_dies_is_a_result(
    base: Image, guest_root: Root, lab: Lab, catalogue: features.Catalogue, tmp_path: Path
) -> None:
    start = check_start(base, kernel_options=("init=/nonexistent", "rdinit=/nonexistent"))
    record = boot(
        task(replace(start, kernel_options=("root=/dev/nothing0", "rootwait=1")), catalogue),
        guest_root,
        lab,
        tmp_path,
    )
    assert record.outcome is Outcome.CRASHED
    assert {finding.kind for finding in record.findings} == {"panic"}
    assert set(outcomes(record).values()) == {Outcome.NOT_RUN}
    assert not leftovers()


def test_an_oops_during_a_call_is_told_from_a_lost_instrument(
    base: Image, guest_root: Root, lab: Lab, tmp_path: Path
) -> None:
    with (
        machine.boot(check_start(base), guest_root, lab.machine, lab.limits, tmp_path) as running,
        pytest.raises(GuestCrashed, match="panic"),
    ):
        transport = running.guest.client.get_transport()
        assert transport is not None
        transport.open_session().exec_command("echo c > /proc/sysrq-trigger")
        for _ in range(100):
            running.guest.hello(30)
    assert not leftovers()


def test_a_killed_qemu_is_lost_and_an_unknown_op_is_refused(
    base: Image, guest_root: Root, lab: Lab, tmp_path: Path
) -> None:
    with machine.boot(check_start(base), guest_root, lab.machine, lab.limits, tmp_path) as running:
        with pytest.raises(AgentRefused, match="no_such_feature"):
            running.guest.prepare("no_such_feature", {}, 30)
        os.kill(_qemu(running.folder), signal.SIGKILL)
        with pytest.raises(LostInstrument):
            for _ in range(100):
                running.guest.hello(30)
    assert not leftovers()


def _qemu(folder: Path) -> int:
    """The pid of the guest's QEMU, which names its private folder."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"qemu-system-x86_64") and str(folder).encode() in b" ".join(
                words
            ):
                return int(entry.name)
    raise AssertionError("no QEMU")


def test_qemu_that_exits_at_once_is_lost_and_says_why(
    base: Image, guest_root: Root, lab: Lab, catalogue: features.Catalogue, tmp_path: Path
) -> None:
    broken = replace(lab, machine=replace(lab.machine, check_cpu="no-such-cpu"))
    begun = time.monotonic()
    record = boot(task(check_start(base), catalogue), guest_root, broken, tmp_path)
    assert record.outcome is Outcome.LOST
    assert "no-such-cpu" in record.reason
    assert time.monotonic() - begun < 15


def test_a_guest_that_never_answers_times_out(
    base: Image, guest_root: Root, lab: Lab, catalogue: features.Catalogue, tmp_path: Path
) -> None:
    hasty = replace(lab, limits=replace(lab.limits, boot=3))
    record = boot(task(check_start(base), catalogue), guest_root, hasty, tmp_path)
    assert record.outcome is Outcome.TIMED_OUT
    assert "never said that it was ready" in record.reason
    start_and_cleanup = 15  # an idle host needs 2; 31 s in all have been seen on a busy one
    assert record.seconds < hasty.limits.boot + hang.UNANSWERED + start_and_cleanup
    assert not leftovers()


@pytest.mark.parametrize(
    ("agent", "words"),
    [(RUBBISH, "not an answer"), ("raise SystemExit('no agent today')\n", "no agent today")],
)
def test_an_agent_that_is_none_is_a_lost_boot(
    agent: str,
    words: str,
    base: Image,
    guest_root: Root,
    lab: Lab,
    catalogue: features.Catalogue,
    tmp_path: Path,
) -> None:
    code = tmp_path / "guest"
    code.mkdir()
    (code / "start.sh").write_text((command_line.GUEST_CODE / "start.sh").read_text())
    (code / "agent.py").write_text(agent)
    start = check_start(base, code=code)
    record = boot(task(start, catalogue), guest_root, lab, tmp_path / "boot")
    assert record.outcome is Outcome.LOST
    assert words in record.reason
    assert set(outcomes(record).values()) == {Outcome.NOT_RUN}
    assert AgentError.__name__ not in record.reason
