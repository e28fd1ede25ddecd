# SPDX-License-Identifier: GPL-2.0-or-later
"""How a guest is started: pure argv pieces, and boot(), which yields a Guest.

virtme-ng composes the command line and brings its own init; the lab takes that command
line, adds its devices, and owns the process: one QEMU in a bubblewrap of its own, which
dies with the lab.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchlab import full, proc, sandbox, scratch
from patchlab.errors import LostInstrument
from patchlab.guests import hang, keys, outside
from patchlab.guests.guest import Console, Guest, GuestCrashed, GuestTimedOut, connect
from patchlab.guests.vigil import Vigil
from patchlab.model import Image, Limits, Machine, Root
from patchlab.record import BootKind, Clock
from patchlab.store import content

DEBUG = "debug"  # the fragment that makes a kernel argue back: kernels/config/debug.config

GUEST_CODE = Path(__file__).parents[2] / "guest"
SHARE = "/run/lab"  # where the guest sees its read-only share
ICOUNT_SHIFT = 1  # one instruction is 2**1 ns of guest time
_READY = "lab.ready"
_MONITOR = "qmp.sock"
_DISK = "disk0"
COUNTS = "counts"
# Each costs a mount under TCG and a piece of the command line, which virtme-ng keeps short.
_WRITABLE = ("/etc", "/mnt", "/root", "/var")
_PORT_TRIES = 5
_PORTS: set[int] = set()
_PORTS_LOCK = threading.Lock()
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


@dataclass(frozen=True, slots=True)
class Running:
    """A guest that answered, and what started it."""

    guest: Guest
    console: Console
    argv: tuple[str, ...]
    ready_seconds: float
    folder: Path
    port: int
    keys: keys.KeyPair


# ---------------------------------------------------------------- argv, piece by piece


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
        *("-drive", f"if=none,id=disk,file={folder / _DISK},format=raw"),
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
        *("-device", f"virtserialport,chardev=ready,name={_READY}"),
        *("-qmp", f"unix:{folder / _MONITOR},server=on,wait=off"),
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


# ---------------------------------------------------------------- starting one


@contextlib.contextmanager
def boot(
    start: Start, root: Root, machine: Machine, limits: Limits, folder: Path
) -> Iterator[Running]:
    """Start a guest, wait until its agent answers, yield it; leave nothing behind.

    ``folder`` is the boot's own, kept by the caller; ``folder/console.log`` is its console.
    Raises LostInstrument (QEMU or SSH broke), GuestCrashed (the kernel died before the agent
    answered), GuestTimedOut (it never answered within ``limits.boot`` seconds). A
    GuestTimedOut of the caller's ends the guest as hang.escalate() says.
    """
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        host_key, user_key = keys.generate(), keys.generate()
        with full.told("a boot", Path(tempfile.gettempdir()), full.TMP_REMEDY):
            private = stack.enter_context(scratch.folder("boot"))
            share = _fill_share(private / "share", start.code, host_key, user_key)
            files = _backing_files(machine, private)
        if start.kind is BootKind.CHECK:
            stack.enter_context(outside.beside(private, files))
        ready = stack.enter_context(_listen(private / "ready.sock"))
        console = Console(folder / "console.log")
        stack.callback(console.keep_marks)
        port, argv, qemu = stack.enter_context(_qemu(start, root, machine, private, share, folder))
        vigil = stack.enter_context(Vigil(qemu.pid))
        check = start.kind is BootKind.CHECK
        suspect = hang.Suspect(console, qemu, vigil, private / _MONITOR, nmi=check)
        try:
            _wait_ready(ready, qemu, console, limits.boot, folder)
            left = max(5.0, begun + limits.boot - time.monotonic())
            client = stack.enter_context(connect(port, host_key, user_key, left))
            guest = Guest(client, console, alive=lambda: qemu.poll() is None)
            suspect = replace(suspect, guest=guest)
            guest.hello(left)
            seconds = time.monotonic() - begun
            yield Running(guest, console, tuple(argv), seconds, private, port, user_key)
        except GuestTimedOut as late:
            raise hang.escalate(late, suspect) from late
        except LostInstrument as lost:
            # QEMU dies without a word when a page of a pmem device has no room.
            if full.is_full(None, private):
                raise full.error(f"a boot: {lost}", private, 0, full.TMP_REMEDY) from lost
            raise


def await_exit(running: Running, deadline: float) -> bool:
    """Power the guest off and wait for QEMU to go; False when it did not in ``deadline``."""
    running.guest.poweroff()
    limit = time.monotonic() + deadline
    while running.guest.alive() and time.monotonic() < limit:
        time.sleep(0.05)
    return not running.guest.alive()


def _fill_share(share: Path, code: Path, host_key: keys.KeyPair, user_key: keys.KeyPair) -> Path:
    ssh = share / "ssh"
    ssh.mkdir(parents=True)
    shutil.copytree(code, share / "guest", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    (ssh / "ssh_host_ed25519_key").write_text(host_key.private)
    (ssh / "authorized_keys").write_text(user_key.public + "\n")
    return share


def agent_digest() -> str:
    """Names the code that guests run: all that _fill_share() gives them."""
    files = sorted(path for path in GUEST_CODE.rglob("*") if _shared(path))
    return content.digest(
        *(part for file in files for part in (str(file.relative_to(GUEST_CODE)), file.read_bytes()))
    )


def _shared(path: Path) -> bool:
    parts = path.relative_to(GUEST_CODE).parts
    hidden = any(part == "__pycache__" or part.startswith(".") for part in parts)
    return path.is_file() and not hidden


def _backing_files(machine: Machine, folder: Path) -> list[Path]:
    """The pmem devices' files. Sparse, and all that they may come to take has to be free."""
    need = sum(device.size for device in machine.pmem) + machine.disk
    full.require("the guest's pmem devices", folder, need, full.TMP_REMEDY)
    if machine.disk:
        with (folder / _DISK).open("wb") as file:
            file.truncate(machine.disk)
    files = [folder / f"pmem{number}" for number in range(len(machine.pmem))]
    for path, device in zip(files, machine.pmem, strict=True):
        with path.open("wb") as file:
            file.truncate(device.size)
    return files


@contextlib.contextmanager
def _listen(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        yield listener


@contextlib.contextmanager
def _qemu(
    start: Start, root: Root, machine: Machine, private: Path, share: Path, folder: Path
) -> Iterator[tuple[int, list[str], subprocess.Popen[bytes]]]:
    base = _compose(start, root, share, machine, private)
    for attempt in range(_PORT_TRIES):
        with contextlib.ExitStack() as stack:
            port = stack.enter_context(_free_port())
            argv = [
                *base,
                *memory_argv(machine),
                *clock_argv(start.clock),
                *cpu_argv(machine, start.kind, start.clock, start.cpu),
                *pmem_argv(machine, private),
                *disk_argv(machine, private),
                *network_argv(port),
                *control_argv(private, start),
            ]
            qemu = stack.enter_context(_process(argv, start, root, private, share, folder))
            if _port_was_taken(qemu, folder) and attempt + 1 < _PORT_TRIES:
                continue
            yield port, argv, qemu
            return


def _compose(start: Start, root: Root, share: Path, machine: Machine, home: Path) -> list[str]:
    shown = proc.run(
        virtme_argv(start, root.disk, share, machine),
        deadline=60,
        env={"HOME": str(home), "XDG_CACHE_HOME": str(home / "virtme")},
        cwd=home,
    )
    for line in shown.output.splitlines():
        if QEMU in line.split(" ", 1)[0]:
            return shlex.split(line)
    raise LostInstrument(f"virtme-ng printed no command line:\n{shown.output[-2000:]}")


@contextlib.contextmanager
def _process(
    argv: Sequence[str], start: Start, root: Root, private: Path, share: Path, folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    boxed = sandbox.bubblewrap(
        argv,
        cwd=private,
        read=[root.disk, start.image.folder, _virtme_guest_tools(), share, *_plugin(start)],
        write={private: private},
        env=outside.environment(private),
        network=True,
        devices=[Path("/dev/kvm")] if start.clock is Clock.WALL else [],
    )
    log = folder / "console.log"
    log.unlink(missing_ok=True)  # of a try whose port was taken
    with (
        # Appending: what QEMU says of itself would else stand on the kernel's first lines.
        log.open("ab") as console,
        (folder / "qemu.log").open("wb") as output,
        proc.spawn(boxed, stdout=output.fileno(), stderr=console.fileno()) as qemu,
    ):
        yield qemu


def _plugin(start: Start) -> list[Path]:
    return [start.plugin] if start.plugin else []


def _virtme_guest_tools() -> Path:
    """virtme-ng's own init and scripts, which it exports to the guest."""
    spec = importlib.util.find_spec("virtme")
    if spec is None or not spec.submodule_search_locations:
        raise LostInstrument("virtme-ng is not installed", hint="make setup")
    # virtme-ng names its folder by its real path.
    return Path(spec.submodule_search_locations[0]).resolve() / "guest"


def _port_was_taken(qemu: subprocess.Popen[bytes], folder: Path) -> bool:
    """QEMU binds the forwarded port within its first moments, or says that it could not."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        qemu.wait(0.3)
    if qemu.poll() is None:
        return False
    said = (folder / "console.log").read_text(errors="replace")
    return "Could not set up host forwarding rule" in said


@contextlib.contextmanager
def _free_port() -> Iterator[int]:
    with _PORTS_LOCK:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port: int = probe.getsockname()[1]
            if port not in _PORTS:
                _PORTS.add(port)
                break
    try:
        yield port
    finally:
        with _PORTS_LOCK:
            _PORTS.discard(port)


def _wait_ready(
    listener: socket.socket,
    qemu: subprocess.Popen[bytes],
    console: Console,
    deadline: float,
    folder: Path,
) -> None:
    """Until the guest says that its SSH server listens, for ``deadline`` seconds."""
    channel: socket.socket | None = None
    limit = time.monotonic() + deadline
    with contextlib.ExitStack() as stack:
        while True:
            late = time.monotonic() > limit
            watched = channel or listener
            if select.select([watched], [], [], 0.1)[0]:
                if channel is None:
                    channel = stack.enter_context(listener.accept()[0])
                elif channel.recv(64):
                    return
            if fatal := console.look():
                time.sleep(1)  # the rest of the trace
                console.look()
                raise GuestCrashed(f"{fatal} before the guest was ready")
            if qemu.poll() is not None:
                raise LostInstrument(
                    f"QEMU exited with {qemu.returncode} before the guest was ready: "
                    + _last_lines(console.path),
                    hint=f"its console: {console.path}, its output: {folder / 'qemu.log'}",
                )
            if late:
                what = f"the guest never said that it was ready in {deadline:.0f} s"
                raise GuestTimedOut(what, deadline)


def _last_lines(path: Path) -> str:
    with contextlib.suppress(OSError):
        return " | ".join(path.read_text(errors="replace").strip().splitlines()[-3:])
    return ""


def host_cores() -> int:
    return len(os.sched_getaffinity(0))
