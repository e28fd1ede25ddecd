# SPDX-License-Identifier: GPL-2.0-or-later
"""The server of direct mmap: real requests in, real replies out of a pipe instead of a kernel."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from guest.fuse import descriptors
from guest.fuse import protocol as p
from guest.fuse.direct import Dialect, decide
from guest.fuse.protocol import Op
from guest.fuse.regions import NEW, Regions
from guest.fuse.server import CUSE_NODE, File, Options, Server
from guest.fuse.steering import Event

PAGE = 4096


class Talk:
    """The kernel's part, played by the test."""

    def __init__(self, *, ids: bool) -> None:
        self.control, self.far = socket.socketpair()
        file = File("ring", bytearray(b"data"), p.FOPEN_DIRECT_MMAP)
        self.server = Server({CUSE_NODE: file}, Options(direct=True), self.control)
        Regions(self.server)
        self.server.ids = ids
        self.reading, self.server.device = os.pipe()
        self.unique = 0

    def send(self, op: Op, payload: bytes) -> int:
        self.unique += 2
        length = p.IN_HEADER.size + len(payload)
        header = p.IN_HEADER.pack(length, op, self.unique, CUSE_NODE, 0, 0, 42, 0, 0)
        self.server.view[:length] = header + payload
        with self.server.changed:
            self.server.answer(op, self.unique, CUSE_NODE, length)
        return self.unique

    def reply(self) -> tuple[int, bytes]:
        data = os.read(self.reading, 1 << 16)
        length, error, unique = p.OUT_HEADER.unpack_from(data)
        assert (length, unique) == (len(data), self.unique)
        return error, data[p.OUT_HEADER.size :]

    def ask(self, op: Op, payload: bytes) -> tuple[int, bytes]:
        self.send(op, payload)
        return self.reply()

    def mmap(self, length: int = PAGE, offset: int = 0) -> tuple[int, ...]:
        """The fields of the reply, its unique is the newest."""
        error, data = self.ask(Op.MMAP, p.MMAP_IN.pack(7, 0x7000, length, offset, 3, 1))
        assert error == 0
        return (p.MMAP_ID_OUT if self.server.ids else p.MMAP_OUT).unpack(data)

    def commit(self, fd: int) -> tuple[int, bytes]:
        fields = (7, self.unique, 0x7000, PAGE, 0, 3, 1, fd, 0)
        return self.ask(Op.MMAP_COMMIT, p.MMAP_COMMIT_IN.pack(*fields))

    def munmap(self, unique: int, handle: int) -> None:
        if self.server.ids:
            payload = p.MUNMAP_ID_IN.pack(7, handle, unique)
        else:
            payload = p.MUNMAP_IN.pack(7, unique, 0x7000, PAGE, handle, 0)
        assert self.ask(Op.MUNMAP, payload) == (0, b"")

    def order(self, do: str, **details: Any) -> dict[str, Any]:
        return self.server.orders[do](**details)

    def mappings(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.order("mappings", forget=False)["mappings"]
        return found

    def close(self) -> None:
        for one in (self.reading, self.server.device):
            os.close(one)
        self.control.close()
        self.far.close()


@pytest.fixture
def ids() -> Iterator[Talk]:
    talk = Talk(ids=True)
    yield talk
    talk.close()


@pytest.fixture
def fds() -> Iterator[Talk]:
    talk = Talk(ids=False)
    yield talk
    talk.close()


@pytest.mark.parametrize(
    ("offered", "asked", "found"),
    [
        (p.MMAP_ID | p.BIG_WRITES, False, Dialect.IDS),
        (p.MMAP_FD, True, Dialect.FDS),
        (p.BIG_WRITES, True, Dialect.POSTED),
        (p.DIRECT_IO_ALLOW_MMAP, False, None),
    ],
)
def test_the_dialect_is_what_the_kernel_shows(
    offered: int, asked: bool, found: Dialect | None
) -> None:
    assert decide(offered, asked) is found


def test_cuse_init_agrees_to_what_is_offered() -> None:
    talk = Talk(ids=False)
    payload = p.CUSE_INIT_IN.pack(7, 41, 0, 1 | p.CUSE_MMAP_ID)
    _, data = talk.ask(Op.CUSE_INIT, payload)
    assert p.CUSE_INIT_OUT.unpack_from(data)[3] == p.CUSE_MMAP_ID
    assert talk.server.ids
    assert b'"agreed": 512' in talk.far.recv(1 << 12)
    talk.close()


def test_ids_are_new_or_shared_as_the_policy_says(ids: Talk) -> None:
    (one, size, flags, _), (other, *_) = ids.mmap(offset=8 * PAGE), ids.mmap()
    assert (size, flags) == (9 * PAGE, 0)
    assert one != other
    assert min(one, other) > 1 << 32
    ids.order("policy", name="ring", region="shared", size=4 * PAGE, flags=p.DONT_COPY)
    first, again = ids.mmap(), ids.mmap()
    assert first == again
    assert first[1:3] == (4 * PAGE, p.DONT_COPY)


def test_each_end_of_a_mapping_is_counted(ids: Talk) -> None:
    handle, *_ = ids.mmap()
    unique = ids.unique
    ids.munmap(unique, handle)
    assert [one["ends"] for one in ids.mappings()] == [["MUNMAP"]]
    ids.munmap(unique, handle)
    ids.munmap(999, handle)
    assert [one["ends"] for one in ids.mappings()] == [["MUNMAP", "MUNMAP"]]
    assert ids.order("mappings", forget=True)["strays"] == ["MUNMAP of 999"]
    assert ids.order("mappings", forget=True) == {"mappings": [], "strays": []}


def test_a_committed_descriptor_is_closed_with_its_last_mapping(fds: Talk) -> None:
    fds.order("policy", name="ring", region="shared")
    assert fds.mmap() == (NEW, 0)
    first, region = fds.unique, os.memfd_create("region")
    assert fds.commit(region) == (0, b"")
    assert fds.mmap() == (region, 0)
    second = fds.unique
    fds.commit(region)
    fds.munmap(first, region)
    os.fstat(region)
    fds.munmap(second, region)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(region)
    assert fds.mmap() == (NEW, 0)


def test_a_given_descriptor_is_not_the_mappings_to_close(fds: Talk) -> None:
    given = fds.order("make", kind="memfd", size=PAGE)["fd"]
    fds.order("policy", name="ring", region="given", given=given)
    assert fds.mmap() == (given, 0)
    unique = fds.unique
    fds.commit(given)
    assert fds.order("store", handle=given, offset=10, data=b"abc".hex()) == {"errno": 0}
    loaded = fds.order("load", handle=given, offset=9, size=5)
    assert bytes.fromhex(loaded["hex"]) == b"\0abc\0"
    fds.munmap(unique, given)
    os.close(given)


def test_commit_with_an_errno_is_an_end(fds: Talk) -> None:
    fds.mmap()
    fds.commit(-errno.EMFILE)
    (found,) = fds.mappings()
    assert (found["committed"], found["ends"]) == (-errno.EMFILE, ["COMMIT"])


def test_refusing_commit_closes_what_it_brought(fds: Talk) -> None:
    fds.order("answer", op=Op.MMAP_COMMIT, error=errno.EPERM)
    fds.mmap()
    region = os.memfd_create("region")
    assert fds.commit(region) == (-errno.EPERM, b"")
    assert fds.mappings()[0]["ends"] == ["ANSWER"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(region)


def test_a_raw_reply_goes_out_as_it_is(ids: Talk) -> None:
    ids.order("policy", name="ring", raw=b"lies".hex())
    assert ids.ask(Op.MMAP, p.MMAP_IN.pack(1, 2, PAGE, 0, 1, 1)) == (0, b"lies")


def test_a_refused_mmap_is_no_mapping(ids: Talk) -> None:
    ids.order("answer", op=Op.MMAP, error=errno.EBUSY)
    assert ids.ask(Op.MMAP, p.MMAP_IN.pack(1, 2, PAGE, 0, 1, 1)) == (-errno.EBUSY, b"")
    assert ids.mappings() == []


def test_the_log_tells_what_was_asked(fds: Talk) -> None:
    fds.mmap(2 * PAGE, 3 * PAGE)
    asked = fds.unique
    fds.commit(-errno.EMFILE)
    lines = fds.order("log", clear=False)["log"]
    mmap, commit = (
        Event(one[0], p.op_name(one[1]), *one[2:]) for one in lines if one[0] == "request"
    )
    assert (mmap.op, mmap.name, mmap.size, mmap.offset) == ("MMAP", "ring", 2 * PAGE, 3 * PAGE)
    assert (mmap.fh, mmap.addr, mmap.prot, mmap.flags) == (7, 0x7000, 3, 1)
    assert (commit.op, commit.handle, commit.mapping) == ("MMAP_COMMIT", -errno.EMFILE, asked)


def test_odd_descriptors_are_what_they_say() -> None:
    made = {kind: make(PAGE) for kind, make in descriptors.KINDS.items() if kind != "closed"}
    try:
        assert fcntl.fcntl(made["sealed"], fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
        assert fcntl.fcntl(made["readonly"], fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        assert fcntl.fcntl(made["writeonly"], fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
        assert os.fstat(made["memfd"]).st_size == PAGE
        assert descriptors.seal(made["memfd"]) == 0
        assert descriptors.seal(made["readonly"]) == errno.EPERM
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptors.KINDS["closed"](0))
    finally:
        for fd in made.values():
            os.close(fd)
