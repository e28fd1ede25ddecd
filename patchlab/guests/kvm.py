# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM is proved, not assumed: the first image is booted under it and the answer remembered.

On some hosts /dev/kvm opens, a VM can be made and the firmware runs, and a kernel still dies
or hangs in its decompressor. That file can be opened says nothing.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from patchlab import host, proc, scratch
from patchlab.errors import LostInstrument
from patchlab.guests import command_line, machine
from patchlab.guests.guest import GuestCrashed, GuestTimedOut
from patchlab.model import Image, Lab, Limits, Root
from patchlab.paths import Cache
from patchlab.progress import Progress
from patchlab.record import BootKind, Clock
from patchlab.store import content

DEVICE = Path("/dev/kvm")
# A kernel that is going to come up under KVM does so in two seconds or three.
_PATIENCE = 25.0


class Proof(msgspec.Struct, frozen=True):
    """What is known of KVM here. ``state``: absent, unproved, refused or proved."""

    state: str
    reason: str
    when: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}" if self.reason else self.state


def qemu_version() -> str:
    """The first line of ``qemu-system-x86_64 --version``. Raises MissingTool."""
    return proc.run([command_line.QEMU, "--version"], deadline=30).output.splitlines()[0].strip()


def remembered(cache: Cache) -> Proof:
    """Without booting anything: absent, what was found last time, or unproved."""
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        why = "no /dev/kvm" if not DEVICE.exists() else "/dev/kvm may not be opened by this user"
        return Proof("absent", why)
    file = _file(cache)
    if file.is_file():
        return msgspec.json.decode(file.read_bytes(), type=Proof)
    return Proof("unproved", "no image has been booted under KVM on this host and QEMU yet")


def prove(image: Image, root: Root, lab: Lab, cache: Cache, progress: Progress) -> Proof:
    """Boot ``image`` under KVM unless the answer is known, and remember the answer."""
    known = remembered(cache)
    if known.state != "unproved":
        return known
    with progress.step("KVM: booting the first image under it"):
        proof = _try(image, root, lab)
    scratch.write(_file(cache), msgspec.json.encode(proof).decode())
    progress.note(f"KVM {proof}")
    return proof


def clock(proof: Proof) -> Clock:
    """The clock of a run's timings: wall where KVM was proved, icount elsewhere."""
    return Clock.WALL if proof.state == "proved" else Clock.ICOUNT


def _try(image: Image, root: Root, lab: Lab) -> Proof:
    start = command_line.Start(image, BootKind.CHECK, Clock.WALL, seed=1)
    limits = Limits(_PATIENCE, _PATIENCE, _PATIENCE, _PATIENCE, _PATIENCE)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    with scratch.folder("proof") as folder:
        try:
            with machine.boot(start, root, lab.machine, limits, folder) as running:
                seconds = running.ready_seconds
                if not machine.await_exit(running, 15):
                    return Proof("refused", "the guest came up but did not power off", when)
        except (GuestCrashed, GuestTimedOut) as error:
            return Proof("refused", _said(folder) or _first_line(error), when)
        except LostInstrument as error:
            # QEMU ends by itself when KVM fails; when it ends for another reason nothing
            # was learnt about KVM, and nothing may be remembered.
            if not (said := _said(folder)):
                raise
            return Proof("refused", f"{said} ({_first_line(error)})", when)
    return Proof("proved", f"a guest answered in {seconds:.1f} s", when)


def _said(folder: Path) -> str:
    """What QEMU said of KVM, or ``""``. What the guest's kernel says does not count."""
    for name in ("qemu.log", "console.log"):
        log = folder / name
        if log.is_file():
            for line in log.read_text(errors="replace").splitlines():
                by_qemu = line.startswith(("KVM", command_line.QEMU))
                if by_qemu and "kvm" in line.lower():
                    return line[:200]
    return ""


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]


def _file(cache: Cache) -> Path:
    facts = host.facts()
    name = content.digest(qemu_version(), facts.get("cpu", ""), facts.get("kernel", ""))
    return cache.room("hosts") / f"kvm-{name}.json"
