# SPDX-License-Identifier: GPL-2.0-or-later
"""The process outside the guest: its answers, and that it sees every flush."""

from __future__ import annotations

import base64
import contextlib
import json
import mmap
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from patchlab import proc
from patchlab.guests import outside
from patchlab.guests.backing import PAGE

SIZE = 1 << 20
# What QEMU does with a device's file, in a process that is not ours.
STORES = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
with mmap.mmap(fd, 0) as memory:
    memory[0:5] = b"first"
    os.fsync(fd)
    memory[4096:4101] = b"later"
    with open(sys.argv[2], "wb") as other:
        os.fdatasync(other.fileno())
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pmem0"
    with path.open("wb") as new:
        new.truncate(SIZE)
    return path


@pytest.fixture
def there(tmp_path: Path, file: Path) -> Iterator[outside.Outside]:
    with outside.beside(tmp_path, [file]) as one:
        yield one


def ask(there: outside.Outside, do: str, **more: Any) -> tuple[dict[str, Any], bytes]:
    line, _, data = there.answer(json.dumps({"id": 1, "do": do, **more}).encode()).partition(b"\n")
    return json.loads(line), data


def test_it_finds_what_was_stored_where_it_is_told_to_look(
    there: outside.Outside, file: Path
) -> None:
    with file.open("r+b") as guest, mmap.mmap(guest.fileno(), SIZE) as memory:
        memory[PAGE : PAGE + 3] = b"abc"
        memory[9 * PAGE : 9 * PAGE + 3] = b"def"
        told, _ = ask(there, "read", extents=[[9 * PAGE, 3], [PAGE, 3]])
    assert base64.b64decode(told["data"]) == b"defabc"


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"do": "read", "extents": [[SIZE - 1, 2]]}, "of a device of"),
        ({"do": "read", "extents": [[-1, 2]]}, "of a device of"),
        ({"do": "read", "extents": [[0, SIZE], [0, 1]]}, "more than"),
        ({"do": "read", "device": 1}, "there are 1"),
        ({"do": "play", "at": SIZE - 8}, "two words"),
        ({"do": "play", "at": 4}, "two words"),
        ({"do": "cut"}, "nothing is watched"),
        ({"do": "rm"}, "there are hello"),
        ({"do": "read", "extents": "all"}, "Expected"),
        ({"do": "read", "path": "/etc/passwd"}, "unknown field"),
    ],
)
def test_it_gives_a_guest_nothing_but_its_own_devices(
    there: outside.Outside, request_: dict[str, Any], says: str
) -> None:
    told, data = ask(there, **request_)
    assert not told["ok"]
    assert says in told["error"]
    assert not data


def test_what_is_no_request_gets_an_answer(there: outside.Outside) -> None:
    assert not json.loads(there.answer(b"\xff{\n"))["ok"]


def test_it_answers_in_memory(there: outside.Outside, file: Path) -> None:
    at = 3 * PAGE
    with file.open("r+b") as guest, mmap.mmap(guest.fileno(), SIZE) as memory:
        ask(there, "play", at=at, turns=50)
        limit = time.monotonic() + 20.0
        for word in range(1, 51):
            struct.pack_into("<Q", memory, at, word)
            while struct.unpack_from("<Q", memory, at + 8)[0] != word:
                assert time.monotonic() < limit
                time.sleep(0.0001)  # this thread has the interpreter that the other one needs
        assert ask(there, "played")[0]["turns"] == 50
        struct.pack_into("<Q", memory, at, 51)
        assert ask(there, "played")[0]["turns"] == 50


def test_a_flush_of_another_process_is_seen_before_it_is_done(
    there: outside.Outside, file: Path, tmp_path: Path
) -> None:
    assert ask(there, "hello")[0] == {
        "id": 1, "ok": True, "bytes": 0, "sizes": [SIZE], "flushes": True
    }  # fmt: skip
    ask(there, "watch")
    argv = [sys.executable, "-c", STORES, str(file), str(tmp_path / "other")]
    proc.run(argv, deadline=30, env=outside.environment(tmp_path))
    told, data = ask(there, "cut", kept=0.0, seed=1)
    # One flush counts beside the watch itself: that of the other file is none of ours.
    assert (told["flushes"], told["pages"], told["dirty"], told["lost"]) == (2, 1, 1, 1)
    page, content = struct.unpack(f"<Q{PAGE}s", data)
    assert (page, content[:5]) == (0, b"first")
    assert ask(there, "cut", kept=1.0, seed=1)[1][8:13] == b"later"


@pytest.mark.usefixtures("there")
def test_the_guests_port_is_served_and_a_line_without_end_is_not(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as port:
        port.settimeout(10.0)
        port.connect(str(tmp_path / "outside.sock"))
        port.sendall(b'{"id":7,"do":"hello"}\n')
        assert json.loads(port.recv(4096))["id"] == 7
        port.sendall(b"x" * (1 << 17))
        assert _ended(port)


def _ended(port: socket.socket) -> bool:
    try:
        return port.recv(1) == b""
    except ConnectionError:
        return True


def test_nothing_is_left_when_the_boot_is_over(tmp_path: Path, file: Path) -> None:
    def held() -> set[object]:
        # Not /proc/self/task: a thread that was joined may be there for a moment more.
        found: set[object] = set(threading.enumerate())
        for fd in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the one that lists them
                found.add((fd.name, fd.readlink()))
        return found

    before = held()
    with outside.beside(tmp_path, [file]):
        assert held() - before
    assert not held() - before


@pytest.mark.usefixtures("there")
def test_the_port_and_the_library_are_of_the_boots_own_folder(tmp_path: Path) -> None:
    assert str(tmp_path) in " ".join(outside.argv(tmp_path))
    assert all(str(tmp_path) in value for value in outside.environment(tmp_path).values())
    assert outside.environment(tmp_path / "nowhere") == {}
