# SPDX-License-Identifier: GPL-2.0-or-later
"""How a guest is started: boot(), which yields a Guest.

virtme-ng composes the command line and brings its own init; the lab takes that command
line, adds its devices (command_line.py), and owns the process: one QEMU in a bubblewrap of
its own, which dies with the lab.
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
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchlab import full, proc, sandbox, scratch
from patchlab.errors import LostInstrument
from patchlab.guests import command_line, hang, keys, outside
from patchlab.guests.command_line import Start
from patchlab.guests.guest import Console, Guest, GuestCrashed, GuestTimedOut, connect
from patchlab.guests.vigil import Vigil
from patchlab.model import Limits, Machine, Root
from patchlab.record import BootKind, Clock
from patchlab.store import content

_PORT_TRIES = 5
_PORTS: set[int] = set()
_PORTS_LOCK = threading.Lock()


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
        suspect = hang.Suspect(console, qemu, vigil, private / command_line.MONITOR, nmi=check)
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
    files = sorted(path for path in command_line.GUEST_CODE.rglob("*") if _shared(path))
    return content.digest(
        *(
            part
            for file in files
            for part in (str(file.relative_to(command_line.GUEST_CODE)), file.read_bytes())
        )
    )


def _shared(path: Path) -> bool:
    parts = path.relative_to(command_line.GUEST_CODE).parts
    hidden = any(part == "__pycache__" or part.startswith(".") for part in parts)
    return path.is_file() and not hidden


def _backing_files(machine: Machine, folder: Path) -> list[Path]:
    """The pmem devices' files. Sparse, and all that they may come to take has to be free."""
    need = sum(device.size for device in machine.pmem) + machine.disk
    full.require("the guest's pmem devices", folder, need, full.TMP_REMEDY)
    if machine.disk:
        with (folder / command_line.DISK).open("wb") as file:
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
                *command_line.memory_argv(machine),
                *command_line.clock_argv(start.clock),
                *command_line.cpu_argv(machine, start.kind, start.clock, start.cpu),
                *command_line.pmem_argv(machine, private),
                *command_line.disk_argv(machine, private),
                *command_line.network_argv(port),
                *command_line.control_argv(private, start),
            ]
            qemu = stack.enter_context(_process(argv, start, root, private, share, folder))
            if _port_was_taken(qemu, folder) and attempt + 1 < _PORT_TRIES:
                continue
            yield port, argv, qemu
            return


def _compose(start: Start, root: Root, share: Path, machine: Machine, home: Path) -> list[str]:
    shown = proc.run(
        command_line.virtme_argv(start, root.disk, share, machine),
        deadline=60,
        env={"HOME": str(home), "XDG_CACHE_HOME": str(home / "virtme")},
        cwd=home,
    )
    for line in shown.output.splitlines():
        if command_line.QEMU in line.split(" ", 1)[0]:
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
