# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls to an agent over a real SSH connection, whose other end is a thread of the test."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from patchlab.errors import LostInstrument
from patchlab.guests.guest import Console, Guest, GuestCrashed, GuestTimedOut

PANIC = "[    1.000000] Linux version 6.12.0\n[    2.000000] Kernel panic - not syncing: Oops\n"
Agent = Callable[[paramiko.Channel], None]


class Server(paramiko.ServerInterface):
    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def check_auth_password(self, username: str, password: str) -> int:  # noqa: ARG002
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:  # noqa: ARG002
        threading.Thread(target=self._serve, args=(channel,), daemon=True).start()
        return True

    def _serve(self, channel: paramiko.Channel) -> None:
        # The other end may be gone at any moment: what is tested is what it saw before.
        with contextlib.suppress(EOFError, OSError):
            self._agent(channel)


@contextlib.contextmanager
def guest(agent: Agent, console: Path, alive: bool = True) -> Iterator[Guest]:
    """A Guest whose agent is a function with the other end of the channel."""
    near, far = socket.socketpair()
    server = paramiko.Transport(far)
    server.add_server_key(paramiko.ECDSAKey.generate())
    server.start_server(event=threading.Event(), server=Server(agent))
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    try:
        client.connect("guest", username="root", password="", sock=near, look_for_keys=False)
        yield Guest(client, Console(console), alive=lambda: alive)
    finally:
        client.close()
        server.close()


def request(channel: paramiko.Channel) -> int:
    """The number of the next request. Raises EOFError when there is none."""
    data = b""
    while not data.endswith(b"\n"):
        if not (more := channel.recv(1000)):
            raise EOFError
        data += more
    return int(json.loads(data)["id"])


def answers(channel: paramiko.Channel) -> None:
    while True:
        body = {"id": request(channel), "ok": True, "facts": {"cpus": "2"}}
        channel.sendall(json.dumps(body).encode() + b"\n")


def silent(channel: paramiko.Channel) -> None:
    request(channel)
    channel.sendall_stderr(b"a word that nobody waits for\n")


def leaves(channel: paramiko.Channel) -> None:
    with contextlib.suppress(EOFError, OSError):
        request(channel)
    channel.sendall_stderr(b"no agent today\n")
    channel.close()


def drips(channel: paramiko.Channel) -> None:
    """An answer that never ends, a byte at a time."""
    request(channel)
    while True:
        channel.sendall(b" ")
        time.sleep(0.05)


def test_an_answer_is_given_as_soon_as_it_comes(tmp_path: Path) -> None:
    with guest(answers, tmp_path / "log") as one:
        begun = time.monotonic()
        for _ in range(20):
            assert one.hello(60)["cpus"] == "2"
        assert time.monotonic() - begun < 10


@pytest.mark.parametrize("agent", [silent, drips])
def test_a_deadline_holds_whatever_comes_instead_of_an_answer(agent: Agent, tmp_path: Path) -> None:
    with (
        guest(agent, tmp_path / "log") as one,
        pytest.raises(GuestTimedOut, match="no answer to 'hello' in 1 s") as caught,
    ):
        one.hello(0.6)
    assert caught.value.waited == 0.6
    assert caught.value.heard is None


def test_a_deadline_does_not_go_by_the_clock_on_the_wall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's clock is set back by a day while the lab waits."""
    with guest(silent, tmp_path / "log") as one:
        hour, begun = iter(range(0, -90_000_000, -3600)), time.monotonic()
        monkeypatch.setattr(time, "time", lambda: float(next(hour)))
        with pytest.raises(GuestTimedOut):
            one.hello(0.5)
        monkeypatch.undo()
    assert time.monotonic() - begun < 30


def test_an_agent_that_leaves_is_lost_and_a_dead_kernel_is_not(tmp_path: Path) -> None:
    with (
        guest(leaves, tmp_path / "log", alive=False) as one,
        pytest.raises(LostInstrument, match=r"channel closed during 'hello'.*no agent today"),
    ):
        one.hello(60)
    (tmp_path / "log").write_text(PANIC)
    with (
        guest(leaves, tmp_path / "log", alive=False) as one,
        pytest.raises(GuestCrashed, match="panic"),
    ):
        one.hello(60)


def test_a_marker_that_nobody_takes_is_no_answer(tmp_path: Path) -> None:
    with guest(answers, tmp_path / "log") as one:
        one.client.close()
        assert one.marker("deadline passed") is False
