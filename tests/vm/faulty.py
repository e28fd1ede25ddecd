# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots in which something goes wrong on purpose: an agent of a test's own does it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from patchlab.guests import command_line, vigil
from patchlab.model import Image, Lab, Root
from patchlab.record import BootKind, BootRecord, Clock
from patchlab.runs import features, measure
from tests.vm import boots

# Answers like the real agent, passes every check, and meets its fate in the first one.
_AGENT = """\
import json, os, signal, subprocess, sys, time
from pathlib import Path

def fate():
    {fate}

for line in sys.stdin:
    request = json.loads(line)
    reply = {{"id": request["id"], "ok": True}}
    if request["op"] == "check":
        fate()
        reply["result"] = {{"id": request["check"], "feature": request["feature"],
                            "outcome": "passed", "expected": "", "seen": "", "seconds": 0}}
    if request["op"] == "poweroff":
        os.write(os.open("/run/lab-state/poweroff", os.O_WRONLY | os.O_NONBLOCK), b"\\n")
    print(json.dumps(reply), flush=True)
"""
STOPPED_AGENT = "os.kill(os.getpid(), signal.SIGSTOP)"
STOPPED_PROCESSES = "os.kill(-1, signal.SIGSTOP); os.kill(os.getpid(), signal.SIGSTOP)"
# A real-time task that never sleeps, on every vCPU, and no time kept back for the others.
BUSY_CPUS = """\
Path("/proc/sys/kernel/sched_rt_runtime_us").write_text("-1")
    for cpu in reversed(range(os.cpu_count())):
        if cpu == 0 or os.fork() == 0:
            os.sched_setaffinity(0, [cpu])
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))
            while True: pass"""
NO_SSHD = "subprocess.run(['pkill', '-KILL', '-f', 'sshd.*root'], stdin=subprocess.DEVNULL)"
PANIC = "Path('/proc/sysrq-trigger').write_text('c')"
NONE = "pass"
SLOW = "time.sleep(30)"


def code(folder: Path, fate: str) -> Path:
    """A folder like guest/, whose agent meets ``fate``, a statement."""
    folder.mkdir()
    shutil.copyfile(command_line.GUEST_CODE / "start.sh", folder / "start.sh")
    (folder / "agent.py").write_text(_AGENT.format(fate=fate))
    return folder


def task(image: Image, agent: Path, checks: int = 2) -> measure.Task:
    """A check boot with a few checks, which that agent answers."""
    start = command_line.Start(image, BootKind.CHECK, Clock.TCG, 1, code=agent)
    infos = features.catalogue().of(["virtio_pmem"]).checks[:checks]
    return measure.Task(start, image.variant, block=-1, order=0, checks=infos, metrics=())


def hasty(lab: Lab, **seconds: float) -> Lab:
    """The lab with shorter deadlines: the guests of these tests never use the rest."""
    return replace(lab, limits=replace(lab.limits, **seconds))


def boot(image: Image, root: Root, lab: Lab, folder: Path, fate: str) -> BootRecord:
    """The boot's record, and its console in ``folder``/boot; a lost one is made once more."""
    return boots.boot(task(image, code(folder / "agent", fate)), root, lab, folder / "boot")


def qemu() -> int:
    """The pid of the QEMU that this process has started."""
    for pid in vigil.family(os.getpid()):
        with contextlib.suppress(OSError):  # others come and go
            program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0", 1)[0]
            if program.endswith(command_line.QEMU.encode()):
                return pid
    raise AssertionError("no QEMU is below this process")


@contextlib.contextmanager
def stopped(pid: int, seconds: float) -> Iterator[None]:
    """Stop a process now, and let it go on after so many seconds, or afterwards."""
    os.kill(pid, signal.SIGSTOP)
    timer = threading.Timer(seconds, os.kill, (pid, signal.SIGCONT))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
