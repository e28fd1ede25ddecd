# SPDX-License-Identifier: GPL-2.0-or-later
"""``faults``: guests that hang, and a host that misbehaves; what a user is told of each."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec

from patchlab import config, scratch
from patchlab.building import build
from patchlab.guests import root
from patchlab.paths import Cache
from patchlab.record import Outcome
from patchlab.runs import measure
from patchlab.store import content
from tests.proving import evidence
from tests.proving.desk import BASE, RECIPE, Proving, machine_key, now
from tests.vm import faulty, stages

CONTROL = "fuse-writable-mmap@control"
_MINUTE = 60.0
_DAY = 86_400.0
_SAID = 300  # characters of a message in the page
# The agent says in the console that its fate comes, for a thread of the host that has a part in it.
_TELL = "Path('/dev/kmsg').write_text('its fate comes\\n'); time.sleep(5)"


class Fault(msgspec.Struct, frozen=True):
    """A fault and what a user was told."""

    key: str
    name: str
    stage: str
    expected: str  # the outcome of a boot, or the class of an error
    outcome: str
    message: str
    held: bool
    seconds: float
    commit: str
    when: str


@dataclass(frozen=True, slots=True)
class Case:
    """``show`` gives an outcome and a message; ``words`` are what the message has to say."""

    name: str
    stage: str
    expected: str
    words: tuple[str, ...]
    show: Callable[[Proving, Path], tuple[str, str]]


def faults(proving: Proving) -> list[str]:
    """Each fault ends as it should, with the words that help."""
    file = proving.evidence / "faults.json"
    base = config.find_variant(proving.lab, BASE)
    image = build.plan_key(base, proving.lab, proving.cache)
    recipe = (RECIPE, image, machine_key(proving.lab))
    kept = {one.key: one for one in evidence.load(file, Fault) if one.held}
    shown: list[Fault] = []
    for case in CASES:
        key = content.digest(*recipe, case.name, case.stage, case.expected, *case.words)
        shown.append(kept.get(key) or _shown(case, key, proving))
        evidence.store(file, "faults", shown)
    evidence.write(file.with_suffix(".md"), page(shown))
    return [
        f"{one.name}: {one.outcome}: {evidence.line(one.message)}" for one in shown if not one.held
    ]


def _shown(case: Case, key: str, proving: Proving) -> Fault:
    begun = time.monotonic()
    with (
        proving.progress.step(f"{case.stage}: {case.name}"),
        tempfile.TemporaryDirectory(prefix="faults-") as name,
    ):
        outcome, message = case.show(proving, Path(name))
        message = message.replace(name, "…").replace(str(proving.cache.folder), "<cache>")
    held = outcome == case.expected and all(words in message for words in case.words)
    seconds = time.monotonic() - begun
    shown = (case.name, case.stage, case.expected, outcome, message, held, seconds)
    return Fault(key, *shown, proving.commit, now())


def page(shown: list[Fault]) -> str:
    """The page of all faults, in the order of a run's stages."""
    wrong = [one for one in shown if not one.held]
    lines = [
        "# Guests that hang, and a host that misbehaves",
        "",
        f"{len(shown)} faults, {len(shown) - len(wrong)} of them with the outcome and the message",
        "that they should have. Nothing half-done was left by any of them.",
        "",
        "| stage | fault | outcome | what the user reads |",
        "|---|---|---|---|",
    ]
    for one in shown:
        said = evidence.line(one.message)[:_SAID] or "nothing"
        mark = "" if one.held else f" **(not {one.expected})**"
        lines.append(f"| {one.stage} | {one.name} | {one.outcome}{mark} | {said} |")
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- boots


def _boot(
    proving: Proving,
    folder: Path,
    *,
    fate: str,
    check: float = 5.0,
    deed: Callable[[int], None] | None = None,
) -> tuple[str, str]:
    """A check boot of the base; ``deed`` is done by the host when the fate comes."""
    variant = config.find_variant(proving.lab, BASE)
    image = build.build(variant, proving.lab, proving.cache, proving.progress)
    lab = replace(proving.lab, limits=replace(proving.lab.limits, check=check))
    guest_root = root.make(lab.machine, proving.cache, proving.progress)
    results = folder / "boot"
    told = f"{_TELL}; {fate}" if deed else fate
    task = faulty.task(image, faulty.code(folder / "agent", told))
    thread = threading.Thread(target=_follow, args=(results / "console.log", deed), daemon=True)
    thread.start()
    with proving.progress.step("boot") as step:
        record = measure.boot(task, guest_root, lab, results, 1, (), step)
    return record.outcome, record.reason or f"passed in {record.seconds:.0f} s"


def _follow(console: Path, deed: Callable[[int], None] | None) -> None:
    limit = time.monotonic() + 600
    while deed and time.monotonic() < limit:
        if console.is_file() and b"its fate comes" in console.read_bytes():
            deed(faulty.qemu())
            return
        time.sleep(0.2)


def _stop(pid: int, *, seconds: float) -> None:
    os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(pid, signal.SIGCONT)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


# ---------------------------------------------------------------- clocks


def _built_tomorrow(proving: Proving, _folder: Path) -> tuple[str, str]:
    """A variant on a base whose objects a wrong clock dated: the kernel that it should be."""
    variant = config.find_variant(proving.lab, CONTROL)
    right = build.build(variant, proving.lab, proving.cache, proving.progress)
    base = build.plan_of(build.unpatched(variant), proving.lab, proving.cache).key
    trees = proving.cache.room("trees")
    with scratch.folder("try", proving.cache.room("tmp")) as other:
        (other / "trees").mkdir()
        for room in ("sources", "hosts"):
            (other / room).symlink_to(proving.cache.room(room))
        shutil.copytree(trees / base, other / "trees" / base, True, copy_function=_tomorrow)
        made = build.build(variant, proving.lab, Cache(other), proving.progress)
    same = "the same" if made.bzimage_sha256 == right.bzimage_sha256 else "another"
    return "built", f"{same} bzImage as from a base with today's dates, {made.build_steps} steps"


def _tomorrow(source: str, to: str) -> None:
    status = os.lstat(source)
    if status.st_nlink > 1:
        os.link(source, to)
    else:
        shutil.copy2(source, to, follow_symlinks=False)
        when = time.time() + _DAY
        os.utime(to, (when, when), follow_symlinks=False)


# ---------------------------------------------------------------- disks


def _disk(
    _proving: Proving, folder: Path, *, stage: str, size: str, options: str = "rw"
) -> tuple[str, str]:
    said = stages.on_small_disk(stage, folder / "disk", folder / "work", size, options)
    if said.error:
        return said.error, f"{said.message} → {said.hint} (exit code {said.exit_code})"
    outcome, _, message = said.result.partition(": ")
    return outcome, message


NMI = "an NMI made it list its tasks"
CASES = (
    Case(
        "disk full",
        "source",
        "DiskFull",
        ("(exit code 69)", "more needed"),
        partial(_disk, stage="unpack", size="4m"),
    ),
    Case(
        "disk full",
        "base build",
        "DiskFull",
        ("(exit code 69)", "more needed"),
        partial(_disk, stage="base_build", size="8m"),
    ),
    Case(
        "disk full",
        "variant build",
        "DiskFull",
        ("(exit code 69)", "more needed"),
        partial(_disk, stage="variant_build", size="8m"),
    ),
    Case(
        "disk full",
        "guest root",
        "DiskFull",
        ("(exit code 69)", "more needed"),
        partial(_disk, stage="guest_root", size="60m"),
    ),
    Case(
        "disk full in $TMPDIR",
        "boot",
        Outcome.LOST,
        ("pmem devices", "more needed"),
        partial(_disk, stage="private_folder", size="50m"),
    ),
    Case(
        "disk full for the console",
        "boot",
        Outcome.LOST,
        ("its log may be cut",),
        partial(_disk, stage="boot_results", size="50m"),
    ),
    Case(
        "disk full",
        "results",
        "DiskFull",
        ("(exit code 69)", "--resume"),
        partial(_disk, stage="results_database", size="200k"),
    ),
    Case(
        "disk full",
        "report",
        "DiskFull",
        ("(exit code 69)",),
        partial(_disk, stage="report_page", size="200k"),
    ),
    Case(
        "cache on a file system of its own",
        "build",
        "same",
        (),
        partial(_disk, stage="any_use", size="40m"),
    ),
    Case(
        "cache on a file system mounted noexec",
        "build",
        "MissingTool",
        ("mounted noexec",),
        partial(_disk, stage="any_use", size="40m", options="noexec"),
    ),
    Case(
        "base built by a clock one day ahead",
        "variant build",
        "built",
        ("the same bzImage",),
        _built_tomorrow,
    ),
    Case(
        "agent stopped",
        "check boot",
        Outcome.TIMED_OUT,
        ("listed its tasks over SSH",),
        partial(_boot, fate=faulty.STOPPED_AGENT),
    ),
    Case(
        "every process stopped",
        "check boot",
        Outcome.TIMED_OUT,
        ("SSH was dead", NMI),
        partial(_boot, fate=faulty.STOPPED_PROCESSES),
    ),
    Case(
        "real-time loop on every vCPU",
        "check boot",
        Outcome.TIMED_OUT,
        ("SSH was dead", NMI),
        partial(_boot, fate=faulty.BUSY_CPUS),
    ),
    Case(
        "kernel panic", "check boot", Outcome.CRASHED, ("panic",), partial(_boot, fate=faulty.PANIC)
    ),
    Case(
        "SSH server killed",
        "check boot",
        Outcome.LOST,
        ("'check'",),
        partial(_boot, fate=faulty.NO_SSHD),
    ),
    Case(
        "QEMU killed",
        "check boot",
        Outcome.LOST,
        ("'check'",),
        partial(_boot, fate=faulty.SLOW, check=120, deed=_kill),
    ),
    Case(
        "QEMU stopped for a minute, deadline of two",
        "check boot",
        Outcome.PASSED,
        (),
        partial(_boot, fate=faulty.NONE, check=120, deed=partial(_stop, seconds=_MINUTE)),
    ),
    Case(
        "QEMU stopped for longer than the deadline",
        "check boot",
        Outcome.LOST,
        ("QEMU was stopped for",),
        partial(_boot, fate=faulty.NONE, check=20, deed=partial(_stop, seconds=2 * _MINUTE)),
    ),
)
