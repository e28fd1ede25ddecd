# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's start to the agent's first reply, and a bare vng on the same kernel."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import time
from pathlib import Path

from benchmarks.bench import BASE, Bench
from benchmarks.record import Found, Row
from patchlab import proc
from patchlab.errors import LabError, LostInstrument
from patchlab.guests import command_line, machine
from patchlab.guests.guest import GuestCrashed, GuestTimedOut
from patchlab.model import Image, Root
from patchlab.record import BootKind, Clock

_LIMIT = 300.0
_ENDED_WELL = re.compile(rb"virtme-ng-init: script exited with code 0\b")


def first_reply(bench: Bench) -> Found:
    """The two take turns, so that a slow minute of the host is the same for both."""
    image, guest_root = bench.image(BASE), bench.root()
    replies: list[float] = []
    whole: list[float] = []
    bare: list[float] = []
    why = ""
    for turn in range(bench.times(7, 2)):
        with bench.progress.step(f"agent's first reply ({turn + 1})"):
            reply, end = _lab(bench, image, guest_root, bench.folder("first-reply") / str(turn))
        replies.append(reply)
        whole.append(end)
        if not why:
            try:
                with bench.progress.step(f"bare vng ({turn + 1})"):
                    bare.append(_vng(bench, image, bench.folder("first-reply") / "vng.log"))
            except LabError as error:
                why = str(error).splitlines()[0]
    return Found(
        (
            Row("the lab's agent answers after", "s", tuple(replies), 12, note=_counted(bench)),
            Row("the lab's guest is off again after", "s", tuple(whole)),
            Row(
                "a bare vng that runs python3 -c pass is off again after",
                "s",
                tuple(bare),
                missing=why,
            ),
            _ratio("first reply against the bare vng", replies, bare, why),
            _ratio("off again against the bare vng", whole, bare, why),
        )
    )


def _counted(bench: Bench) -> str:
    return (
        f"{bench.lab.machine.cpus} vCPUs, TCG, real time; from before the command line is "
        "composed to the reply over SSH"
    )


def _ratio(what: str, ours: list[float], theirs: list[float], why: str) -> Row:
    """Turn by turn: both were taken within the same minute."""
    turns = tuple(a / b for a, b in zip(ours, theirs, strict=False))
    return Row(what, "×", turns, missing=why)


def _lab(bench: Bench, image: Image, guest_root: Root, folder: Path) -> tuple[float, float]:
    folder.mkdir(exist_ok=True)
    begun = time.monotonic()
    start = command_line.Start(image, BootKind.CHECK, Clock.TCG, bench.lab.sampling.seed)
    lab = bench.lab
    try:
        with machine.boot(start, guest_root, lab.machine, lab.limits, folder) as running:
            machine.await_exit(running, lab.limits.poweroff)
            return running.ready_seconds, time.monotonic() - begun
    except (GuestCrashed, GuestTimedOut) as error:
        raise LostInstrument(f"a boot of {image.variant}: {error}") from error


def vng_argv(image: Path, cpus: int, memory: int) -> list[str]:
    """What a user would type; vng wants a terminal, which script(1) gives it."""
    vng = [
        *("vng", "--run", str(image), "--disable-kvm", "--force-9p", "--verbose"),
        *("--cpus", str(cpus), "--memory", f"{memory >> 20}M", "--", "python3", "-c", "pass"),
    ]
    return ["script", "--quiet", "--return", "--command", shlex.join(vng), "/dev/null"]


def _vng(bench: Bench, image: Image, log: Path) -> float:
    tools = str(Path(sys.executable).parent)
    path = f"{tools}:{proc.environment()['PATH']}"
    if shutil.which("vng", path=path) is None:
        raise LabError("there is no vng beside this Python")
    wanted = bench.lab.machine
    begun = time.monotonic()
    argv = vng_argv(image.bzimage, wanted.cpus, wanted.memory)
    log.unlink(missing_ok=True)
    try:
        proc.run(argv, deadline=_LIMIT, env={"PATH": path}, cwd=log.parent, log=log)
    except proc.CommandFailed:
        # The lab's kernels have no virtio console, over which vng would hear the exit code.
        if not _ENDED_WELL.search(log.read_bytes()):
            raise
    return time.monotonic() - begun
