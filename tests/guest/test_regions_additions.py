# SPDX-License-Identifier: GPL-2.0-or-later
"""What is added to a server with regions, on memory that no kernel gave: card and echo."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from guest.demos import card, sound
from guest.demos.card import BUFFER, PERIOD, PERIODS, TOLD, Card
from guest.fuse import protocol as p
from guest.fuse.protocol import Op
from guest.fuse.regions import Regions
from guest.fuse.server import CUSE_NODE, HEADER, File, Options, Server
from guest.libc import Map

PATIENCE = 20.0  # seconds


@pytest.fixture
def regions() -> Iterator[Regions]:
    """A server of the descriptor dialect whose newest region is a memfd."""
    ours, theirs = socket.socketpair()
    fd = os.memfd_create("region")
    os.ftruncate(fd, BUFFER)
    server = Server({CUSE_NODE: File("dsp", bytearray())}, Options(direct=True), theirs)
    found = Regions(server)
    found.newest[CUSE_NODE] = fd
    yield found
    for one in (ours, theirs):
        one.close()
    os.close(fd)


def write(server: Server, data: bytes) -> object:
    """The server's reply to a WRITE."""
    server.view[HEADER : HEADER + p.WRITE_IN.size] = p.WRITE_IN.pack(0, 0, len(data), 0, 0, 0, 0)
    end = HEADER + p.WRITE_IN.size + len(data)
    server.view[end - len(data) : end] = data
    with server.changed:
        return server.handlers[Op.WRITE](CUSE_NODE, end)


def noted(server: Server, event: str) -> int:
    return sum(one[0] == event for one in server.log)


def test_descriptors_are_told_between_two_requests_only(regions: Regions) -> None:
    server, kept = regions.server, regions.newest[CUSE_NODE]
    with ThreadPoolExecutor() as pool, server.changed:
        pipe = os.pipe()  # as a server has that answers by splice(2)
        told = pool.submit(server.do_fds)
        with pytest.raises(TimeoutError):
            told.result(0.2)
        what = {str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in pipe}
        for fd in pipe:
            os.close(fd)
        server.changed.release()
        found = dict(told.result(PATIENCE)["fds"])
        server.changed.acquire()
    assert "memfd:region" in found[kept]
    assert not what & set(found.values())


def test_a_card_plays_the_ring_in_order_and_counts_underruns(regions: Regions) -> None:
    server, tone = regions.server, os.urandom((PERIODS + 2) * PERIOD)
    played = Card(regions).recorded
    with Map(regions.newest[CUSE_NODE], BUFFER) as ring:
        for number in range(PERIODS):
            ring.view[card.place(number)] = tone[number * PERIOD : (number + 1) * PERIOD]
        assert write(server, TOLD.pack(PERIODS, 0)) == p.WRITE_OUT.pack(TOLD.size, 0)
        with server.changed:
            assert server.changed.wait_for(lambda: noted(server, "underrun") >= 2, PATIENCE)
            assert bytes(played) == tone[: PERIODS * PERIOD]
            assert ring.view[0] == PERIODS
        for number in (PERIODS, PERIODS + 1):  # over the first two
            ring.view[card.place(number)] = tone[number * PERIOD : (number + 1) * PERIOD]
        write(server, TOLD.pack(PERIODS + 2, 1))
        with server.changed:
            assert server.changed.wait_for(lambda: noted(server, "period") == PERIODS + 2, PATIENCE)
            assert bytes(played) == tone
            times = [one[8] for one in server.log if one[0] == "period"]
    assert times[PERIODS - 1] - times[0] > (PERIODS - 2) * card.SECONDS * 1e9


def test_a_card_takes_no_other_write_and_none_before_the_ring_is_mapped(regions: Regions) -> None:
    Card(regions)
    assert write(regions.server, bytes(PERIOD)) == -22
    regions.newest.clear()
    assert write(regions.server, TOLD.pack(1, 0)) == -22


def test_no_two_periods_of_the_tone_are_alike() -> None:
    tone = sound.tone()
    periods = {tone[at : at + PERIOD] for at in range(0, len(tone), PERIOD)}
    assert len(periods) == sound.TONE == len(tone) // PERIOD


def test_an_echo_answers_each_word_with_its_successor(regions: Regions, tmp_path: Path) -> None:
    fd, ends = regions.newest[CUSE_NODE], []
    for name in ("ping", "pong"):
        os.mkfifo(tmp_path / name)
        ends.append(os.open(tmp_path / name, os.O_RDWR))
    ping, pong = ends
    with Map(fd, BUFFER) as region:
        words = region.view.cast("Q")
        regions.server.orders["echo"](
            handle=fd, ping=str(tmp_path / "ping"), pong=str(tmp_path / "pong")
        )
        for word in (1, 7, 1 << 60):
            words[0] = word
            os.write(ping, b".")
            assert os.read(pong, 1)
            assert words[1] == word + 1
    os.close(ping)
    os.close(pong)
