# SPDX-License-Identifier: GPL-2.0-or-later
"""Carries out the steps of ``guest.fuzz`` against a kernel, with clients that do everything."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random

from guest import health, libc, victims
from guest.fuse import protocol as p
from guest.fuse.protocol import Notify, Op
from guest.fuzz import ANSWERS, Step, edge, signed
from guest.kills import retrieve_message, store_message
from guest.libc import PAGE
from guest.victims import Victim
from guest.wire import Gone, Request, Wire, commit_fd, munmap_unique
from guest.words import CheckError

_DIES = 20.0  # seconds that a killed client may take, on a slow machine
_CLIENTS = 2
_RESEND = 1 << 63  # FUSE_UNIQUE_RESEND
_HELD = (Op.MMAP, Op.MMAP_COMMIT, Op.MUNMAP)
_KEPT = 64  # descriptors from COMMIT that are kept open at most


class Fuzzer:
    """One run. ``counts`` says how many of each kind went out; errors are CheckErrors."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.counts: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()  # errno of the writes
        self.mounts = self.clients_made = 0
        self.odd = odd_fds(folder)
        self._open()

    def run(self, steps: Iterable[Step]) -> None:
        """Every step, then the end. A failure names the step."""
        step = None
        try:
            for step in steps:
                self._step(step)
            self._drain()
        except (CheckError, TimeoutError, Gone) as error:
            raise CheckError(
                f"seed {self.seed}, {step or 'before the first step'}: {error}"
            ) from None
        finally:
            self._close()

    # ------------------------------------------------------------ mounts and clients

    def _open(self) -> None:
        self.mounts += 1
        self.wire = Wire(self.folder / f"fuzz{self.mounts}")
        self.held: list[Request] = []
        self.never: list[Request] = []
        self.answered: list[int] = []
        self.sizes: dict[int, int] = {}  # id -> bytes, of answers that were taken
        self.alive: dict[int, int] = {}  # unique of an MMAP -> its id, until the MUNMAP
        self.taken: set[int] = set()  # uniques of MMAPs whose answer was taken
        self.ended: dict[int, set[int]] = {}  # the same -> uniques of the MUNMAPs
        self.refused: set[int] = set()  # MMAPs that a COMMIT ended, or may have
        self.lost = 0  # messages that a bad read lost, ends of mappings perhaps
        self.fds: list[int] = []
        self.asked: dict[int, int] = {}  # notify_unique -> bytes asked for
        self.clients = [self._client() for _ in range(_CLIENTS)]

    def _client(self) -> Victim:
        self.clients_made += 1
        seed, scratch = f"{self.seed} {self.clients_made}", str(self.folder)
        return Victim(
            lambda: victims.wild(str(self.wire.path), seed, 3600, scratch),
            [self.wire.device, *self.fds],
            self.clients_made,
        )

    def _replace(self, place: int) -> None:
        self._bury(self.clients[place])
        self.clients[place] = self._client()

    def _bury(self, client: Victim, *, served: bool = True) -> None:
        """Kills it and waits; its last close is a message that wants an answer."""
        client.kill()
        began = time.monotonic()
        while not client.ended(0.01) and time.monotonic() < began + _DIES:
            if served:
                self._pump(0.01)
            if served and time.monotonic() > began + 1:
                self._flush()  # v1 has waits that no signal ends
        ended = client.ended()
        client.close()
        if not ended:
            raise CheckError(f"a killed client is still there: {'; '.join(health.stuck())}")

    def _flush(self) -> None:
        """An answer to everything that waits."""
        for request in (*self.held, *self.never):
            self.wire.send(request.unique, -errno.EIO if request.opcode == Op.MMAP else 0)
        self.held, self.never = [], []

    def _drain(self) -> None:
        """Every client gone, every message answered: then each mapping has had its one end."""
        for client in self.clients:
            client.kill()

        limit = time.monotonic() + _DIES
        while not self._quiet():
            if time.monotonic() > limit:
                raise CheckError(
                    f"after every client was killed {health.waiting(self.wire.connection)} "
                    f"requests wait; {'; '.join(health.stuck())}"
                )
        self._judge()

    def _quiet(self) -> bool:
        self._pump(0.01)
        self._flush()
        gone = all(one.ended() for one in self.clients)
        return gone and not health.waiting(self.wire.connection)

    def _judge(self) -> None:
        endless = self.taken - set(self.ended) - self.refused
        twice = [one for one, by in self.ended.items() if len(by) > 1]
        untold = set(self.ended) - self.taken
        if len(endless) > self.lost or twice or untold:
            raise CheckError(
                f"MMAPs whose answer was taken: {len(self.taken)}; without an end {len(endless)} "
                f"{sorted(endless)[:3]}, with two {twice[:3]}; ended and never taken "
                f"{sorted(untold)[:3]}"
            )

    def _abort(self) -> None:
        self.wire.abort()
        for client in self.clients:
            self._bury(client, served=False)
        self._shut()
        self._open()

    def _shut(self) -> None:
        for fd in set(self.fds):
            with contextlib.suppress(OSError):
                os.close(fd)
        self.wire.close()

    def _close(self) -> None:
        self.wire.abort()
        for client in self.clients:
            client.close()
        self._shut()
        for fd in self.odd[1:]:  # the first is closed as it is
            os.close(fd)

    # ------------------------------------------------------------ reading

    def _pump(self, seconds: float) -> None:
        """Reads what there is; only the messages of direct mmap are kept."""
        while request := self.wire.read(seconds):
            seconds = 0.0
            if request.opcode in _HELD:
                self._hold(request)
            elif request.opcode == Op.NOTIFY_REPLY:
                self._retrieved(request)
            else:
                self.wire.honest(request)

    def _hold(self, request: Request) -> None:
        self.held.append(request)
        if request.opcode == Op.MUNMAP:
            of = munmap_unique(request, self.wire.regions.ids) & ~_RESEND
            self.ended.setdefault(of, set()).add(request.unique & ~_RESEND)
            self.alive.pop(of, None)
        elif request.opcode == Op.MMAP_COMMIT:
            fd = commit_fd(request)
            if fd >= 0 and fd not in self.fds and fd not in self.odd:
                self.fds.append(fd)
            elif fd < 0:
                self.refused.add(p.MMAP_COMMIT_IN.unpack_from(request.body)[1] & ~_RESEND)
            while len(self.fds) > _KEPT:
                self._shut_fd(0)

    def _shut_fd(self, place: int) -> None:
        with contextlib.suppress(OSError):
            os.close(self.fds.pop(place))

    def _retrieved(self, request: Request) -> None:
        _, _, size, *_ = p.RETRIEVE_IN.unpack_from(request.body)
        data = len(request.body) - p.RETRIEVE_IN.size
        asked = self.asked.pop(request.unique, None)
        if asked is None or size != data or size > asked:
            raise CheckError(
                f"NOTIFY_REPLY {request.unique:#x}: {size} bytes said, {data} there, {asked} asked"
            )

    # ------------------------------------------------------------ steps

    def _step(self, step: Step) -> None:
        random = Random(step.seed)
        self._pump(0.0)
        if step.kind in ANSWERS:
            if not self.held:
                self._pump(0.1)
            if not self.held:  # all clients are dead, or wait for what never comes
                self._replace(step.pick % _CLIENTS)
                return
            request = self.held.pop(step.pick % len(self.held))
            self._answer(step, request, random)
        else:
            getattr(self, "_do_" + step.kind.replace(" ", "_"))(step, random)
        self.counts[step.kind] += 1

    def _write(self, step: Step, message: bytes) -> int:
        refused = (self.wire.splice if step.spliced else self.wire.write)(message)
        self.answers[libc.name_of(refused)] += 1
        return refused

    def _answer(self, step: Step, request: Request, random: Random) -> None:
        if step.kind == "never":
            self.never.append(request)
            return
        error, payload, length = self._reply(step, request, random)
        size = p.OUT_HEADER.size + len(payload) if length is None else length
        message = p.OUT_HEADER.pack(size & 0xFFFFFFFF, error, request.unique) + payload
        refused = self._write(step, message)
        self.answered.append(request.unique)
        unique = request.unique & ~_RESEND
        if request.opcode == Op.MMAP and not refused and not error:
            self.taken.add(unique)
            if self.wire.regions.ids:
                map_id, region = p.MMAP_ID_OUT.unpack(payload)[:2]
                self.alive[unique] = map_id
                if list(self.alive.values()).count(map_id) == 1:
                    self.sizes[map_id] = region
        elif request.opcode == Op.MMAP_COMMIT and (refused or error):
            self.refused.add(p.MMAP_COMMIT_IN.unpack_from(request.body)[1] & ~_RESEND)
        if refused == errno.EINVAL and step.kind in ("lie", "bad errno"):
            self.held.append(request)  # the kernel looked at the header only: it still waits

    def _reply(self, step: Step, request: Request, random: Random) -> tuple[int, bytes, int | None]:
        """Errno, payload, and the header's length where it is not the true one."""
        payload = self._region(step, request, random) if request.opcode == Op.MMAP else b""
        extra = random.randbytes(random.randrange(1, 100))
        high = step.value if step.value > 0 else step.value - 600
        replies: dict[str, tuple[int, bytes, int | None]] = {
            "errno": (-step.value, b"", None),
            "bad errno": (signed(high, 32), b"", None),
            "payload and errno": (-errno.EIO, payload + extra, None),
            "short": (0, payload[: len(payload) // 2] if payload else extra, None),
            "long": (0, payload + extra, None),
            "lie": (0, payload, step.size),
        }
        return replies.get(step.kind, (0, payload, None))

    def _region(self, step: Step, request: Request, random: Random) -> bytes:
        _, _, length, offset, _, _ = p.MMAP_IN.unpack_from(request.body)
        flags = random.choice((0, 0, 0, 1, 2, 3))
        if not self.wire.regions.ids:
            return p.MMAP_OUT.pack(*self._fd_region(step, random, flags))
        known = list(self.alive.values())
        map_id = known[step.pick % len(known)] if known else 0
        if step.kind == "share" and known:
            return p.MMAP_ID_OUT.pack(map_id, self.sizes[map_id], flags, 0)
        if step.kind != "region":
            return p.MMAP_ID_OUT.pack(request.unique, length + offset, 0, 0)
        if random.random() < 0.2:
            flags = edge(random) & 0xFFFFFFFF
        padding = random.choice((0, 0, 0, 0, 0, 0, 1, 0xFFFFFFFF))
        return p.MMAP_ID_OUT.pack(random.choice((map_id, step.value)), step.size, flags, padding)

    def _fd_region(self, step: Step, random: Random, flags: int) -> tuple[int, int]:
        if step.kind == "share" and self.fds:
            return self.fds[step.pick % len(self.fds)], flags
        if step.kind != "region":
            return -1, 0
        if random.random() < 0.2:
            flags = edge(random) & 0xFFFFFFFF
        fds = (self.odd[step.pick % len(self.odd)], signed(step.value, 32), -1)
        return random.choice(fds), flags

    # ------------------------------------------------------------ messages and deeds

    def _do_again(self, step: Step, _: Random) -> None:
        if self.answered:
            unique = self.answered[step.pick % len(self.answered)]
            self._write(step, p.OUT_HEADER.pack(p.OUT_HEADER.size, 0, unique))

    def _do_stranger(self, step: Step, _: Random) -> None:
        unique = (step.value | 1 << 50) & ~1
        refused = self._write(step, p.OUT_HEADER.pack(p.OUT_HEADER.size, 0, unique))
        if not refused:
            raise CheckError(f"an answer to {unique:#x}, which was never asked, was taken")

    def _do_interrupt(self, step: Step, random: Random) -> None:
        uniques = [one.unique for one in (*self.held, *self.never)] or self.answered or [4]
        unique = uniques[step.pick % len(uniques)] | 1  # FUSE_INT_REQ_BIT
        error = random.choice((0, -errno.EAGAIN, -errno.ENOSYS, -errno.EINTR))
        payload = random.choice((b"", b"", b"12345678"))
        self._write(
            step, p.OUT_HEADER.pack(p.OUT_HEADER.size + len(payload), error, unique) + payload
        )

    def _id(self, step: Step, random: Random) -> int:
        known = list(self.alive.values())
        return known[step.pick % len(known)] if known and random.random() < 0.8 else step.value

    def _do_store(self, step: Step, random: Random) -> None:
        data = random.randbytes(min(step.size, random.choice((1, 100, PAGE, 3 * PAGE))))
        told = random.choice((len(data), len(data), len(data), step.size & 0xFFFFFFFF))
        map_id = self._id(step, random)
        refused = self._write(step, store_message(map_id, step.offset, data, told))
        self._must_refuse("STORE", map_id, refused, told == len(data))

    def _do_retrieve(self, step: Step, random: Random) -> None:
        map_id, size = self._id(step, random), step.size & 0xFFFFFFFF
        unique = (1 << 40 | step.number << 1) + 2
        self.asked[unique] = size
        refused = self._write(step, retrieve_message(unique, map_id, step.offset, size))
        self._must_refuse("RETRIEVE", map_id, refused, True)

    def _must_refuse(self, what: str, map_id: int, refused: int, sound: bool) -> None:
        """Where no answer that the kernel took has named the id, there is no region."""
        if self.wire.regions.ids and sound and not refused and map_id not in self.sizes:
            raise CheckError(f"{what} to id {map_id:#x}, which was never given, was taken")

    def _do_truncated(self, step: Step, random: Random) -> None:
        whole = random.choice(
            (
                store_message(self._id(step, random), 0, bytes(random.randrange(100))),
                retrieve_message(6, self._id(step, random), 0, PAGE),
            )
        )[p.OUT_HEADER.size :]
        part = whole[: random.randrange(len(whole))]
        code = random.choice((Notify.MAP_STORE, Notify.MAP_RETRIEVE))
        self._write(step, p.notification(code, part))

    def _do_code(self, step: Step, random: Random) -> None:
        payload = random.randbytes(random.randrange(80))
        header = p.OUT_HEADER.pack(p.OUT_HEADER.size + len(payload), signed(step.value, 32), 0)
        self._write(step, header + payload)

    def _do_resend(self, step: Step, _: Random) -> None:
        self._write(step, p.OUT_HEADER.pack(p.OUT_HEADER.size, 7, 0))  # FUSE_NOTIFY_RESEND

    def _do_scrap(self, step: Step, random: Random) -> None:
        self._write(step, random.randbytes(random.randrange(1, 64)))

    def _do_kill(self, step: Step, _: Random) -> None:
        self._replace(step.pick % _CLIENTS)

    def _do_bad_read(self, _: Step, random: Random) -> None:
        self.wire.ready(0.05)
        if random.random() < 0.3:
            with contextlib.suppress(OSError):
                os.read(self.wire.device, random.randrange(1, p.MIN_READ_BUFFER))
        # In the header, behind it, and in the body: the shortest that a client waits for is a
        # LOOKUP of 45 bytes, and one that fits would be read and never answered.
        elif self.wire.read_badly(random.choice((0, 8, 40, 44))) == errno.EFAULT:
            self.lost += 1

    def _do_close(self, step: Step, _: Random) -> None:
        if self.fds:
            self._shut_fd(step.pick % len(self.fds))

    def _do_abort(self, _step: Step, _: Random) -> None:
        self._abort()


def odd_fds(folder: Path) -> list[int]:
    """Descriptors that no region should be, a closed one first, and some that may be one."""
    cloexec = os.O_CLOEXEC
    regular = os.open(folder, os.O_RDWR | os.O_TMPFILE | cloexec, 0o600)
    memory = os.memfd_create("region")
    os.ftruncate(memory, 8 * PAGE)
    return [
        regular + 500,
        regular,
        memory,
        os.open(f"/proc/self/fd/{memory}", os.O_RDONLY | cloexec),
        os.open(folder, os.O_RDONLY | cloexec),
        os.open(folder, os.O_PATH | cloexec),
        os.open("/dev/null", os.O_RDWR | cloexec),
        os.open("/dev/zero", os.O_RDWR | cloexec),
        os.eventfd(0),
    ]
