# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of QEMU's command line, piece by piece: what a guest's machine has, and its clock."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from patchlab.guests import hang, outside
from patchlab.model import Image, Machine
from patchlab.record import BootKind, Clock

DEBUG = "debug"  # the fragment that makes a kernel argue back: kernels/config/debug.config

GUEST_CODE = Path(__file__).parents[2] / "guest"
SHARE = "/run/lab"  # where the guest sees its read-only share
ICOUNT_SHIFT = 1  # one instruction is 2**1 ns of guest time
READY = "lab.ready"
MONITOR = "qmp.sock"
DISK = "disk0"
COUNTS = "counts"
# Each costs a mount under TCG and a piece of the command line, which virtme-ng keeps short.
_WRITABLE = ("/etc", "/mnt", "/root", "/var")
QEMU = "qemu-system-x86_64"


@dataclass(frozen=True, slots=True)
class Start:
    """One boot to make: which image, how, and with which draw of chance."""

    image: Image
    kind: BootKind
    clock: Clock
    seed: int
    kernel_options: tuple[str, ...] = ()
    gdb: bool = False  # offer QEMU's stub on <folder>/gdb.sock
    code: Path = GUEST_CODE  # what the guest sees as its agent
    cpu: str = ""  # one of Machine.models, by name; "" is the one for this kind of boot
    plugin: Path | None = None  # of TCG; what it counts goes to <folder>/counts


def clock_argv(clock: Clock) -> list[str]:
    """The clock of the run. Under icount one instruction is 2 ns and idle time is skipped."""
    if clock is Clock.ICOUNT:
        return [
            *("-accel", "tcg,thread=single"),
            *("-icount", f"shift={ICOUNT_SHIFT},sleep=off"),
            *("-rtc", "base=2026-01-01T00:00:00,clock=vm"),
        ]
    return ["-accel", "kvm" if clock is Clock.WALL else "tcg"]


def cpu_argv(machine: Machine, kind: BootKind, clock: Clock, model: str = "") -> list[str]:
    """``model`` is one of the machine's, by name; without it the kind of boot and clock decide."""
    if model:
        return ["-cpu", dict(machine.models)[model]]
    if clock is Clock.WALL:
        return ["-cpu", "host"]
    return ["-cpu", machine.bench_cpu if kind is BootKind.BENCH else machine.check_cpu]


def memory_argv(machine: Machine) -> list[str]:
    """virtio-pmem is a memory device, so it needs room above the guest's own memory."""
    total = machine.memory + sum(device.size for device in machine.pmem)
    slack = 1 << 30
    return ["-m", f"size={machine.memory >> 20}M,maxmem={(total + slack) >> 20}M"]


def pmem_argv(machine: Machine, folder: Path) -> list[str]:
    argv: list[str] = []
    for number, device in enumerate(machine.pmem):
        argv += [
            "-object",
            f"memory-backend-file,id=mem{number},share=on,"
            f"mem-path={folder / f'pmem{number}'},size={device.size}",
            "-device",
            f"virtio-pmem-pci,memdev=mem{number},id=pmem{number}",
        ]
    return argv


def disk_argv(machine: Machine, folder: Path) -> list[str]:
    """The disk that a run may want; the guest knows it by its serial number."""
    if not machine.disk:
        return []
    return [
        *("-drive", f"if=none,id=disk,file={folder / DISK},format=raw"),
        *("-device", "virtio-blk-pci,drive=disk,serial=lab.disk"),
    ]


def network_argv(port: int) -> list[str]:
    """One card; the only thing that it reaches is the forwarded SSH port of the host."""
    return [
        *("-netdev", f"user,id=lab,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
        *("-device", "virtio-net-pci,netdev=lab"),
    ]


def control_argv(folder: Path, start: Start) -> list[str]:
    """The ready signal and QEMU's monitor, as unix sockets in a folder of mode 0700."""
    argv = [
        *("-chardev", f"socket,id=ready,path={folder / 'ready.sock'}"),
        *("-device", "virtio-serial-pci"),
        *("-device", f"virtserialport,chardev=ready,name={READY}"),
        *("-qmp", f"unix:{folder / MONITOR},server=on,wait=off"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-seed", str(start.seed & 0xFFFFFFFF)),
    ]
    if start.kind is BootKind.CHECK:
        argv += outside.argv(folder)
    if start.gdb:
        argv += ["-gdb", f"unix:{folder / 'gdb.sock'},server=on,wait=off"]
    if start.plugin:
        argv += ["-plugin", f"file={start.plugin},out={folder / COUNTS}"]
    return argv


def kernel_options(start: Start) -> list[str]:
    """Options that make a boot repeatable, and those that make boots differ: the padding.

    The padding is a word of seeded length that nobody reads; it moves what init finds on
    its stack.
    """
    options = ["loglevel=7", "net.ifnames=0"]
    if start.clock is Clock.ICOUNT:
        options += ["nokaslr", "norandmaps"]
        # While the guest waits for its host, its clock jumps to the next timer: a flush of a slow
        # disk takes minutes there, and nothing hangs.
        options += ["sysctl.kernel.hung_task_timeout_secs=0"]
    elif start.clock is Clock.TCG:
        # On a loaded host one boot lost the tick of a vCPU for good, as if a one-shot timer
        # interrupt had gone missing under TCG. A periodic one comes again.
        options += ["nohz=off", "highres=off"]
        # There, too, a guest's TSC was calibrated against the PIT and came out 4.5 times too
        # slow, so that its clock ran ahead of every deadline. The HPET is QEMU's own clock.
        options += ["tsc=unstable"]
        # And there the kernel found no timer tick in the few that it counts, and panicked.
        options += ["no_timer_check"]
    if start.kind is BootKind.CHECK:
        options += hang.NMI_OPTIONS
    if DEBUG in start.image.fragments:
        # A host that gives a vCPU no time for 20 s is no lockup of the guest.
        options += ["watchdog_thresh=60"]
        # While identify_cpu() reads the CPU's features anew, LA57 looks absent for a moment, and an
        # interrupt in it makes KASAN call good addresses wild. Four levels are enough.
        options += ["no5lvl"]
    if start.gdb:
        options += ["nokaslr"]
    return [*options, f"lab.pad={'x' * (start.seed % 61)}", *start.kernel_options]


def virtme_argv(start: Start, disk: Path, share: Path, machine: Machine) -> list[str]:
    """The virtme-ng command that prints the guest's command line without starting it."""
    cpus = 1 if start.clock is Clock.ICOUNT else machine.cpus
    argv = [
        *(str(Path(sys.executable).parent / "virtme-run"), "--dry-run", "--show-command"),
        *("--kimg", str(start.image.bzimage), "--mods", "none", "--root-disk", str(disk)),
        # Acceleration is the lab's own choice (clock_argv): virtme-ng takes KVM where it opens.
        *("--disable-kvm", "--force-9p", "--disable-microvm", "--show-boot-console"),
        *("--cpus", str(cpus), "--name", "lab", "--rodir", f"{SHARE.lstrip('/')}={share}"),
        *("--script-sh", f"exec bash {SHARE}/guest/start.sh"),
    ]
    for path in _WRITABLE:
        argv += ["--overlay-rwdir", path]
    for option in kernel_options(start):
        argv += ["-a", option]
    return argv
