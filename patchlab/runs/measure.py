# SPDX-License-Identifier: GPL-2.0-or-later
"""One boot, from start to record: what the guest did, and what its log says of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from patchlab import full
from patchlab.errors import LostInstrument
from patchlab.guests import command_line, console, emulator, machine
from patchlab.guests.guest import AgentRefused, GuestCrashed, GuestTimedOut
from patchlab.model import Image, Lab, Root
from patchlab.progress import Step
from patchlab.record import (
    BootKind,
    BootRecord,
    CheckInfo,
    CheckResult,
    Clock,
    Finding,
    MetricInfo,
    MetricOutcome,
    Outcome,
    Sample,
)

# KASAN and lockdep under TCG, by the time to the agent's first reply.
_SLOWER = 6


@dataclass(frozen=True, slots=True)
class Task:
    """One boot and what is to be done in it."""

    start: command_line.Start
    variant: str
    block: int
    order: int
    checks: tuple[CheckInfo, ...]
    metrics: tuple[MetricInfo, ...]


@dataclass(slots=True)
class _Seen:
    """What a boot has shown so far; kept when the guest dies half-way."""

    ready_seconds: float = 0.0
    argv: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    asked: CheckInfo | None = None  # the check that has not answered yet
    checks: list[CheckResult] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    unmeasured: list[MetricOutcome] = field(default_factory=list)


def boot(
    task: Task,
    root: Root,
    lab: Lab,
    folder: Path,
    attempt: int,
    known: Sequence[console.KnownSplat],
    step: Step,
) -> BootRecord:
    """Make the boot, do the task, scan the log. Never raises for a dead guest or instrument.

    DiskFull when there is no room for its results: then it could not be kept either.
    """
    started, begun, seen = datetime.now(UTC), time.monotonic(), _Seen()
    lab = patient(lab, task.start.image)
    with full.told("the results of a boot", folder, full.RESULTS_REMEDY):
        folder.mkdir(parents=True, exist_ok=True)
        outcome, reason, heard = _drive(task, root, lab, folder, seen, step)
    if outcome is Outcome.PASSED and full.is_full(None, folder):
        outcome, reason = Outcome.LOST, f"its log may be cut: no space left in {folder}"
    log = folder / "console.log"
    data = log.read_bytes() if log.is_file() else b""
    text = data.decode("utf-8", "replace")
    # What the lab made a hung guest say is no finding.
    own = data[:heard].decode("utf-8", "replace")
    findings = console.scan(own.split("\n"), known, date.today())
    outcome, reason = judge(outcome, reason, findings, own, task.start.clock)
    answered = (*seen.checks, *_unanswered(seen, outcome, reason))
    return BootRecord(
        variant=task.variant,
        image_key=task.start.image.key,
        kind=task.start.kind,
        clock=task.start.clock,
        block=task.block,
        order=task.order,
        attempt=attempt,
        outcome=outcome,
        reason=reason,
        seed=task.start.seed,
        started=started.isoformat(timespec="seconds"),
        seconds=time.monotonic() - begun,
        ready_seconds=seen.ready_seconds,
        argv=seen.argv,
        facts=seen.facts,
        console=text,
        checks=(*answered, *_not_run(task, answered, outcome, reason)),
        samples=tuple(seen.samples),
        unmeasured=(*seen.unmeasured, *_not_measured(task, seen, reason)),
        findings=findings,
    )


def _drive(
    task: Task, root: Root, lab: Lab, folder: Path, seen: _Seen, step: Step
) -> tuple[Outcome, str, int | None]:
    """What became of the boot as the host saw it; what it showed goes into ``seen``.

    Third, how many bytes of the console are the guest's own; None for all.
    """
    try:
        with machine.boot(task.start, root, lab.machine, lab.limits, folder) as running:
            seen.ready_seconds, seen.argv = running.ready_seconds, running.argv
            _work(task, running, lab, seen, step)
            if not machine.await_exit(running, lab.limits.poweroff):
                what = f"the guest did not power off in {lab.limits.poweroff:.0f} s"
                raise GuestTimedOut(what, lab.limits.poweroff)
    except GuestCrashed as error:
        return Outcome.CRASHED, str(error), None
    except GuestTimedOut as error:
        return Outcome.TIMED_OUT, str(error), error.heard
    except (LostInstrument, full.DiskFull) as error:
        return Outcome.LOST, str(error), None
    return Outcome.PASSED, "", None


def judge(
    outcome: Outcome, reason: str, findings: Sequence[Finding], text: str, clock: Clock
) -> tuple[Outcome, str]:
    """What the log adds to what the host saw: an oops beats a lost connection, a splat a pass.

    A crash that the emulator caused is a lost boot.
    """
    logged = console.worst(findings)
    if why := emulator.blame(findings, clock):
        return Outcome.LOST, why
    if logged is Outcome.CRASHED:
        title = next(f.title for f in findings if f.kind in console.FATAL)
        return Outcome.CRASHED, reason or title
    if outcome is Outcome.PASSED:
        try:
            console.require_kernel_log(text.split("\n"))
        except LostInstrument as error:
            return Outcome.LOST, str(error)
        if logged is Outcome.SPLAT:
            return Outcome.SPLAT, next(f.title for f in findings if not f.known)
    return outcome, reason


# ---------------------------------------------------------------- inside the guest


def _work(task: Task, running: machine.Running, lab: Lab, seen: _Seen, step: Step) -> None:
    guest = running.guest
    seen.facts.update(guest.hello(lab.limits.check))
    total = len(task.checks) + len(task.metrics)
    done = 0
    for feature in _features(task):
        refused = _prepare(feature, task, running, lab)
        for check in (c for c in task.checks if c.feature == feature):
            _check(check, running, lab.limits.check, refused, seen)
            done += 1
            step.advance(done, total)
        for metric in (m for m in task.metrics if m.feature == feature):
            _measure(metric, task, running, lab, refused, seen)
            done += 1
            step.advance(done, total)


def _features(task: Task) -> tuple[str, ...]:
    checks = (check.feature for check in task.checks)
    metrics = (metric.feature for metric in task.metrics)
    return tuple(dict.fromkeys((*checks, *metrics)))


def _prepare(feature: str, task: Task, running: machine.Running, lab: Lab) -> str:
    """``""``, or why the feature could not be made ready: its checks fail with that."""
    try:
        running.guest.prepare(feature, settings(lab, task.start.seed), lab.limits.check)
    except AgentRefused as error:
        return str(error)
    return ""


def patient(lab: Lab, image: Image) -> Lab:
    """The lab with the deadlines for this image: those of a debug kernel are longer."""
    if command_line.DEBUG not in image.fragments:
        return lab
    limits = lab.limits
    longer = {name: _SLOWER * getattr(limits, name) for name in ("boot", "check", "poweroff")}
    return replace(lab, limits=replace(limits, **longer))


def settings(lab: Lab, seed: int) -> dict[str, Any]:
    """What a feature is told when it is prepared: the devices and the boot's draw."""
    devices = [
        {
            "name": device.name,
            "size": device.size,
            "filesystem": device.filesystem,
            "mkfs": list(device.mkfs),
            "mount": list(device.mount),
        }
        for device in lab.machine.pmem
    ]
    return {"pmem": devices, "seed": seed}


def _check(
    check: CheckInfo, running: machine.Running, deadline: float, refused: str, seen: _Seen
) -> None:
    def ended(outcome: Outcome, what: str) -> None:
        seen.checks.append(CheckResult(check.id, check.feature, outcome, check.sentence, what, 0.0))

    if refused:
        return ended(Outcome.FAILED, f"could not be prepared: {refused}")
    seen.asked = check
    try:
        limit = check.patience * deadline
        seen.checks.append(running.guest.check(check.feature, check.id, limit))
    except AgentRefused as error:
        ended(Outcome.FAILED, str(error))
    seen.asked = None
    return None


def _measure(
    metric: MetricInfo,
    task: Task,
    running: machine.Running,
    lab: Lab,
    refused: str,
    seen: _Seen,
) -> None:
    def none(outcome: Outcome, reason: str) -> None:
        seen.unmeasured.append(MetricOutcome(metric.id, metric.feature, outcome, reason))

    if refused:
        return none(Outcome.FAILED, f"could not be prepared: {refused}")
    try:
        got = running.guest.measure(
            metric.feature,
            metric.id,
            samples=lab.sampling.samples,
            warmup=lab.sampling.warmup,
            seed=task.start.seed,
            deadline=lab.limits.measure,
        )
    except AgentRefused as error:
        return none(Outcome.FAILED, str(error))
    if got and isinstance(got[0], Outcome):
        return none(got[0], str(got[1]))
    seen.samples.extend(s for s in got if isinstance(s, Sample))
    return None


# ---------------------------------------------------------------- what was not reached


def _unanswered(seen: _Seen, outcome: Outcome, reason: str) -> list[CheckResult]:
    """The check under which the guest died or hung; none when the instrument broke."""
    check = seen.asked
    if check is None or outcome not in (Outcome.CRASHED, Outcome.TIMED_OUT):
        return []
    return [CheckResult(check.id, check.feature, outcome, check.sentence, reason, 0.0)]


def _not_run(
    task: Task, done: Sequence[CheckResult], outcome: Outcome, reason: str
) -> list[CheckResult]:
    ran = {(c.feature, c.id) for c in done}
    why = f"the boot ended before it: {reason or outcome}"
    return [
        CheckResult(c.id, c.feature, Outcome.NOT_RUN, c.sentence, why, 0.0)
        for c in task.checks
        if (c.feature, c.id) not in ran
    ]


def _not_measured(task: Task, seen: _Seen, reason: str) -> list[MetricOutcome]:
    have = {(s.feature, s.metric) for s in seen.samples}
    have |= {(m.feature, m.metric) for m in seen.unmeasured}
    why = f"the boot ended before it: {reason}" if reason else "the agent gave no samples"
    return [
        MetricOutcome(m.id, m.feature, Outcome.NOT_RUN, why)
        for m in task.metrics
        if (m.feature, m.id) not in have
    ]


def run_folder(run_id: int) -> str:
    """The folder of a run's boots, in results/."""
    return f"run-{run_id:04d}"


def title(task: Task) -> str:
    if task.start.kind is BootKind.CHECK:
        return f"check boot of {task.variant}"
    return f"bench boot of {task.variant}, block {task.block + 1}"
