# SPDX-License-Identifier: GPL-2.0-or-later
"""A running guest: SSH, typed calls to the agent, and a deadline for every one of them.

The protocol is one JSON object a line each way over the agent's stdin and stdout. What
comes back is untrusted: it is parsed as data, with a size limit, and nothing of it becomes
a path, a command or markup.
"""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import paramiko

from patchlab.errors import LostInstrument
from patchlab.guests.console import Watch
from patchlab.guests.keys import KeyPair
from patchlab.record import CheckResult, Outcome, Sample

T = TypeVar("T")
REPLY_LIMIT = 4 << 20  # bytes
# sshd passes on nothing of init's environment, so what repeats a boot is set here.
AGENT = "exec env PYTHONHASHSEED=0 python3 -u /run/lab/guest/agent.py"
_SLICE = 0.25  # seconds between two looks at QEMU and the console
_SETTLE = 2.0  # seconds for the rest of an oops to reach the log
_START = 30.0  # seconds to start a command over SSH
_HANDSHAKE = 3600.0  # seconds: the deadline of connect() ends it
_ANSWER = 10.0  # seconds for a guest that is late to answer over SSH
_LISTING = 60.0  # seconds for it to list its tasks


class GuestCrashed(Exception):
    """The kernel under test died: data for the boot's record, not an error of the lab."""


class GuestTimedOut(Exception):
    """The guest ran past a deadline on the host's clock.

    ``waited`` is the deadline in seconds. ``heard`` is how much of the console, in bytes, the
    guest wrote before the lab made it say more; None while the lab has done nothing to it.
    """

    def __init__(self, what: str, waited: float, heard: int | None = None) -> None:
        super().__init__(what)
        self.waited = waited
        self.heard = heard


class AgentRefused(Exception):
    """The agent answered that it could not do what was asked."""


class AgentError(LostInstrument):
    """What came back is no answer at all: the instrument broke, not the kernel."""


class _Reply(msgspec.Struct):
    id: int
    ok: bool
    error: str = ""
    facts: dict[str, str] = {}
    result: msgspec.Raw = msgspec.Raw(b"null")
    samples: msgspec.Raw = msgspec.Raw(b"[]")
    trace: msgspec.Raw = msgspec.Raw(b"null")
    outcome: str = ""
    reason: str = ""


class _Result(msgspec.Struct):
    id: str
    feature: str
    outcome: str
    expected: str
    seen: str
    seconds: float


class _Sample(msgspec.Struct):
    index: int
    value: float
    warmup: bool
    idle: bool
    added: float | None = None


# What an agent may say of a check; the rest is for the host to decide.
_AGENT_OUTCOMES = {
    Outcome.PASSED,
    Outcome.FAILED,
    Outcome.UNSUPPORTED,
    Outcome.SKIPPED,
    Outcome.TIMED_OUT,
}


class Console:
    """Follows a guest's console file and tells when the kernel died."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position = 0
        self._watch = Watch()
        self._marks: list[tuple[int, str]] = []
        self.fatal = ""

    def look(self) -> str:
        """Read what is new; the kind of the first fatal finding so far, or ``""``."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self._position)
            while chunk := file.read(1 << 16):
                self._position += len(chunk)
                self.fatal = self.fatal or self._watch.feed(chunk) or ""
        return self.fatal

    def size(self) -> int:
        """Bytes so far."""
        with contextlib.suppress(FileNotFoundError):
            return self.path.stat().st_size
        return 0

    def mark(self, text: str) -> int:
        """Note what the lab does to the guest here; how many bytes the guest had written."""
        position = self.size()
        self._marks.append((position, text))
        return position

    def keep_marks(self) -> None:
        """Write the marks between the guest's lines. Only when QEMU, which writes too, is gone."""
        if not self._marks:
            return
        data, text, done = self.path.read_bytes(), b"", 0
        for position, mark in self._marks:
            text += data[done:position]
            text += b"" if text.endswith(b"\n") or not text else b"\n"
            text += f"lab: {mark}\n".encode()
            done = position
        self.path.write_bytes(text + data[done:])


class Guest:
    """The agent behind one SSH channel. Made by machine.boot()."""

    def __init__(
        self, client: paramiko.SSHClient, console: Console, alive: Callable[[], bool]
    ) -> None:
        self.client = client
        self.console = console
        self.alive = alive
        self._next = 0
        self._buffer = b""
        self._channel = _session(client, AGENT, _START)

    # ------------------------------------------------------------ typed calls

    def hello(self, deadline: float) -> Mapping[str, str]:
        """What the guest says of itself."""
        return self._call("hello", deadline).facts

    def prepare(self, feature: str, settings: Mapping[str, Any], deadline: float) -> None:
        """Let a feature make what its checks and metrics stand on (file systems, mounts)."""
        self._call("prepare", deadline, feature=feature, settings=dict(settings))

    def check(self, feature: str, check: str, deadline: float) -> CheckResult:
        """Run one check. The agent has ``deadline`` seconds, the guest ten more to say so."""
        reply = self._call("check", deadline + 10, feature=feature, check=check, deadline=deadline)
        got = _convert(reply.result, _Result)
        if (got.feature, got.id) != (feature, check):
            raise AgentError(f"check {check}: the answer is about {got.id!r}")
        outcome = _outcome(got.outcome, f"check {check}")
        return CheckResult(check, feature, outcome, got.expected, got.seen, got.seconds)

    def measure(
        self,
        feature: str,
        metric: str,
        *,
        samples: int,
        warmup: int,
        seed: int,
        deadline: float,
    ) -> tuple[Sample, ...] | tuple[Outcome, str]:
        """Samples of one metric, in nanoseconds a unit; or why there are none."""
        wanted = {"samples": samples, "warmup": warmup, "seed": seed}
        reply = self._call("measure", deadline, feature=feature, metric=metric, **wanted)
        if reply.outcome:
            return _outcome(reply.outcome, f"metric {metric}"), reply.reason
        taken = _convert(reply.samples, list[_Sample])
        return tuple(
            Sample(metric, feature, s.index, s.value, s.warmup, s.idle, s.added) for s in taken
        )

    def trace(
        self,
        feature: str,
        metric: str,
        *,
        samples: int,
        warmup: int,
        seed: int,
        deadline: float,
        kind: type[T],
    ) -> T:
        """What guest/tracing.py tells of the windows of one metric; AgentRefused without them."""
        wanted = {"samples": samples, "warmup": warmup, "seed": seed}
        reply = self._call("trace", deadline, feature=feature, metric=metric, **wanted)
        told: T = _convert(reply.trace, kind)
        return told

    def poweroff(self) -> None:
        """Ask for it. There is no answer to wait for: the guest may be gone before it is sent."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._send("poweroff")

    def marker(self, text: str) -> bool:
        """Write a line into the guest's console and ask for blocked and all tasks.

        A last word before the guest is killed, on a channel of its own. False when the guest
        did not get there: nobody answers in _ANSWER seconds, or not to the end in _LISTING.
        """
        script = "cat >/dev/kmsg; echo w >/proc/sysrq-trigger; echo t >/proc/sysrq-trigger"
        limit = time.monotonic() + _LISTING
        broken = (paramiko.SSHException, OSError, EOFError, LostInstrument, GuestTimedOut)
        with contextlib.suppress(*broken):
            channel = _session(self.client, script, _ANSWER)
            with contextlib.closing(channel):
                channel.settimeout(_ANSWER)
                channel.sendall(f"lab: {text}\n".encode())
                channel.shutdown_write()
                while not channel.exit_status_ready() and time.monotonic() < limit:
                    time.sleep(0.1)
                return channel.exit_status_ready() and channel.recv_exit_status() == 0
        return False

    # ------------------------------------------------------------ the wire

    def _call(self, op: str, limit: float, **fields: Any) -> _Reply:
        until = time.monotonic() + limit
        try:
            self._send(op, **fields)
            line = self._line(op, until, limit)
        except (OSError, EOFError, paramiko.SSHException) as error:
            self._explain(f"the connection broke during {op!r}: {error}")
        try:
            reply = msgspec.json.decode(line, type=_Reply)
        except msgspec.MsgspecError as error:
            raise AgentError(f"{op!r}: not an answer ({error}): {line[:200]!r}") from error
        if reply.id != self._next:
            raise AgentError(f"{op!r}: answer to request {reply.id}, not {self._next}")
        if not reply.ok:
            raise AgentRefused(f"{op!r}: {reply.error}")
        return reply

    def _send(self, op: str, **fields: Any) -> None:
        self._next += 1
        self._channel.sendall(msgspec.json.encode({"id": self._next, "op": op, **fields}) + b"\n")

    def _line(self, op: str, until: float, limit: float) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > REPLY_LIMIT:
                raise AgentError(f"{op!r}: the answer is longer than {REPLY_LIMIT} bytes")
            if self.console.look():
                self._explain(f"during {op!r}")
            # Looked at before the answer is: the lab itself may have been stopped meanwhile.
            late = time.monotonic() > until
            if (chunk := self._chunk()) == b"":
                self._explain(f"the agent's channel closed during {op!r}{self._stderr()}")
            self._buffer += chunk or b""
            if late and b"\n" not in self._buffer:
                raise GuestTimedOut(f"no answer to {op!r} in {limit:.0f} s", limit)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _chunk(self) -> bytes | None:
        """What has come in _SLICE seconds: ``b""`` at the end, None for nothing.

        A timeout of paramiko's recv() is by the clock on the wall: one that is set back while
        it waits makes it wait until the clock is there again.
        """
        self._channel.settimeout(0.0)
        if not select.select([self._channel], [], [], _SLICE)[0]:
            return None
        try:
            return self._channel.recv(REPLY_LIMIT)
        except TimeoutError:  # only stderr has something
            time.sleep(_SLICE)
            return None

    def _stderr(self) -> str:
        if not self._channel.recv_stderr_ready():
            return ""
        return ": " + self._channel.recv_stderr(2000).decode("utf-8", "replace").strip()

    def _explain(self, what: str) -> None:
        """Tell a dead kernel from a dead instrument; always raises."""
        limit = time.monotonic() + _SETTLE
        while time.monotonic() < limit and self.alive():
            self.console.look()
            time.sleep(0.1)
        if fatal := self.console.look():
            raise GuestCrashed(f"{fatal} {what}")
        raise LostInstrument(what, hint="the console log of this boot is kept in the results")


def _outcome(text: str, what: str) -> Outcome:
    for outcome in _AGENT_OUTCOMES:
        if outcome.value == text:
            return outcome
    raise AgentError(f"{what}: {text!r} is no outcome that an agent may give")


def _convert(raw: msgspec.Raw, kind: Any) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.MsgspecError as error:
        raise AgentError(f"unusable answer: {error}: {bytes(raw)[:200]!r}") from error


def _session(client: paramiko.SSHClient, script: str, deadline: float) -> paramiko.Channel:
    """A command on a channel of its own. LostInstrument, or GuestTimedOut after ``deadline``."""
    try:
        with _within(client, deadline):
            transport = client.get_transport()
            if transport is None:
                raise LostInstrument("the SSH connection was closed before a command was started")
            channel = transport.open_session(timeout=deadline)
            channel.exec_command(script)
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise LostInstrument(f"no command could be started over SSH: {error}") from error
    return channel


def _patient(*args: Any, **kwargs: Any) -> paramiko.Transport:
    """A transport that waits for the keys of a slow guest: paramiko's own limit is 15 s."""
    transport = paramiko.Transport(*args, **kwargs)
    transport.handshake_timeout = _HANDSHAKE
    return transport


@contextlib.contextmanager
def _within(client: paramiko.SSHClient, deadline: float) -> Iterator[None]:
    """Close the connection after ``deadline`` seconds: not every wait of paramiko has a limit."""
    fired = threading.Event()

    def end() -> None:
        fired.set()
        client.close()

    timer = threading.Timer(deadline, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, EOFError, paramiko.SSHException) as error:
        if fired.is_set() or isinstance(error, TimeoutError):
            raise GuestTimedOut(f"no answer over SSH in {deadline:.0f} s", deadline) from error
        raise
    finally:
        timer.cancel()


@contextlib.contextmanager
def connect(
    port: int, host_key: KeyPair, user_key: KeyPair, deadline: float
) -> Iterator[paramiko.SSHClient]:
    """Root on 127.0.0.1:``port``; the host key is pinned.

    Raises LostInstrument, or GuestTimedOut after ``deadline`` seconds.
    """
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.get_host_keys().add(f"[127.0.0.1]:{port}", "ssh-ed25519", host_key.paramiko())
    try:
        try:
            with _within(client, deadline):
                client.connect(
                    "127.0.0.1",
                    port=port,
                    username="root",
                    pkey=user_key.paramiko(),
                    timeout=deadline,
                    banner_timeout=2 * deadline,  # _within ends it, and knows why
                    auth_timeout=2 * deadline,
                    allow_agent=False,
                    look_for_keys=False,
                    transport_factory=_patient,
                )
        except (OSError, EOFError, paramiko.SSHException) as error:
            what = str(error) or type(error).__name__
            raise LostInstrument(f"SSH to the guest failed: {what}") from error
        yield client
    finally:
        client.close()
