# SPDX-License-Identifier: GPL-2.0-or-later
"""The server's side of direct mmap: which region a mapping gets, and what became of it.

Both kinds of dialect, docs/fuse-direct-mmap.md: descriptors, and ids. A *handle* is what
names a region in the server: its descriptor, or its id.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from guest import libc
from guest.fuse import descriptors
from guest.fuse import protocol as p
from guest.fuse.echo import Echo
from guest.fuse.protocol import Notify, Op
from guest.fuse.server import HEADER, Reply, Server

NEW = -1  # as a descriptor: please make one
_FIRST_ID = 0x1_0000_0001  # an id has 64 bits
_FIRST_NOTIFY = 1 << 48
_PATIENCE = 10.0  # seconds, for the data of a RETRIEVE
_DATA = HEADER + p.RETRIEVE_IN.size


@dataclass(frozen=True, slots=True)
class Policy:
    """How the mmaps of one file are answered."""

    region: str = "own"  # each mapping its own; "shared": one for all; "given": that one
    given: int = NEW
    size: int | None = None  # bytes, of a new region with an id; offset + len if None
    flags: int = 0  # DONT_COPY, DONT_EXPAND, or bits that are not there
    raw: str | None = None  # hex: the payload of the reply, whatever it means
    keep: bool = False  # descriptors stay open when their last mapping ended
    peek: bool = False  # read the client's /proc/PID/maps before the answer
    serve: bool = False  # READ and WRITE go to the file's newest region


@dataclass(slots=True)
class Mapped:
    """One FUSE_MMAP that was answered without an errno."""

    unique: int
    name: str
    pid: int
    fh: int
    addr: int
    length: int
    offset: int
    prot: int
    flags: int
    handle: int = NEW  # NEW until COMMIT says which
    size: int = 0  # bytes, of the region
    taken: bool = True  # the kernel took the reply
    committed: int | None = None  # the fd in COMMIT
    ends: list[str] = field(default_factory=list)  # MUNMAP, COMMIT (negative), ANSWER (our errno)


class Regions:
    """Adds itself to ``server``."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.policies: dict[int, Policy] = {}
        self.mappings: dict[int, Mapped] = {}
        self.commits: dict[int, Mapped] = {}  # by the COMMIT's own unique
        self.strays: list[str] = []  # ends of mappings that nobody knows
        self.users: dict[int, int] = {}  # handle -> mappings
        self.sizes: dict[int, int] = {}  # handle -> bytes
        self.owned: set[int] = set()  # descriptors that COMMIT brought
        self.shared: dict[int, int] = {}  # node -> handle
        self.newest: dict[int, int] = {}  # node -> handle
        self.next_id = _FIRST_ID
        self.next_notify = _FIRST_NOTIFY
        self.retrieved: dict[int, tuple[int, bytes]] = {}  # notify_unique -> offset, data
        self.reading: dict[int, int] = {}  # notify_unique -> unique of a READ
        self.fetching: dict[int, Callable[[bytes], object]] = {}  # notify_unique -> who gets it
        server.handlers |= {
            Op.MMAP: self.mmap,
            Op.MMAP_COMMIT: self.commit,
            Op.MUNMAP: self.munmap,
            Op.READ: self.read,
            Op.WRITE: self.write,
        }
        server.told[Op.NOTIFY_REPLY] = self.notify_reply
        server.refusals[Op.MMAP_COMMIT] = self.refuse_commit
        server.refused |= {
            Op.MMAP: self.mmap_refused,
            Op.MMAP_COMMIT: self.commit_refused,
            Op.MUNMAP: lambda _: None,
        }
        server.details |= {
            Op.MMAP: self.tell_mmap,
            Op.MMAP_COMMIT: self.tell_commit,
            Op.MUNMAP: self.tell_munmap,
        }
        server.orders |= {
            "echo": Echo(self).start,
            "policy": self.do_policy,
            "mappings": self.do_mappings,
            "load": self.do_load,
            "store": self.do_store,
            "make": self.do_make,
            "seal": lambda fd: {"errno": descriptors.seal(fd)},
            "limit": self.do_limit,
        }

    def unpack(self, form: Any) -> tuple[int, ...]:
        return tuple(form.unpack_from(self.server.view, HEADER))

    def unique(self) -> int:
        return int(p.IN_HEADER.unpack_from(self.server.view)[2])

    # ------------------------------------------------------------ the log

    def tell_mmap(self) -> tuple[int, ...]:
        fh, addr, length, offset, prot, flags = self.unpack(p.MMAP_IN)
        return offset, length, flags, fh, addr, prot, NEW, self.unique()

    def tell_commit(self) -> tuple[int, ...]:
        fh, of, addr, length, offset, prot, flags, fd, _ = self.unpack(p.MMAP_COMMIT_IN)
        return offset, length, flags, fh, addr, prot, fd, of

    def tell_munmap(self) -> tuple[int, ...]:
        if self.server.ids:
            fh, handle, of = self.unpack(p.MUNMAP_ID_IN)
            return 0, 0, 0, fh, 0, 0, handle, of
        fh, of, addr, length, handle, _ = self.unpack(p.MUNMAP_IN)
        return 0, length, 0, fh, addr, 0, handle, of

    # ------------------------------------------------------------ requests

    def mmap(self, node: int, _length: int) -> Reply:
        policy = self.policies.get(node, Policy())
        mapping = self._asked(node)
        if policy.peek:
            self._peek(mapping.pid)
        if policy.raw is not None:
            return bytes.fromhex(policy.raw)
        mapping.handle = self._choose(node, policy)
        mapping.size = self.sizes.get(mapping.handle, 0)
        if not mapping.size:
            mapping.size = policy.size or mapping.offset + mapping.length
        if mapping.handle != NEW:
            self._use(node, mapping)
        if self.server.ids:
            return p.MMAP_ID_OUT.pack(mapping.handle, mapping.size, policy.flags, 0)
        return p.MMAP_OUT.pack(mapping.handle, policy.flags)

    def _asked(self, node: int) -> Mapped:
        _, _, unique, _, _, _, pid, *_ = p.IN_HEADER.unpack_from(self.server.view)
        fh, addr, size, offset, prot, flags = self.unpack(p.MMAP_IN)
        name = self.server.nodes[node].name
        mapping = Mapped(unique, name, pid, fh, addr, size, offset, prot, flags)
        self.mappings[unique] = mapping
        return mapping

    def _peek(self, pid: int) -> None:
        # The control channel must go on: this may wait for as long as the client lives.
        self.server.changed.release()
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/maps").read_bytes()
        self.server.changed.acquire()

    def _choose(self, node: int, policy: Policy) -> int:
        if policy.region == "given":
            return policy.given
        if policy.region == "shared" and node in self.shared:
            return self.shared[node]
        if not self.server.ids:
            return NEW
        self.next_id += 1
        if policy.region == "shared":
            self.shared[node] = self.next_id
        return self.next_id

    def _use(self, node: int, mapping: Mapped) -> None:
        self.users[mapping.handle] = self.users.get(mapping.handle, 0) + 1
        self.sizes.setdefault(mapping.handle, mapping.size)
        self.newest[node] = mapping.handle

    def _drop(self, mapping: Mapped) -> None:
        handle = mapping.handle
        if handle not in self.users:
            return
        self.users[handle] -= 1
        keep = self._policy(mapping).keep
        if self.users[handle] or keep:
            return
        del self.users[handle], self.sizes[handle]
        if handle in self.owned:
            self.owned.discard(handle)
            os.close(handle)
            self.shared = {node: one for node, one in self.shared.items() if one != handle}

    def _policy(self, mapping: Mapped) -> Policy:
        return self.policies.get(self.server.names[mapping.name], Policy())

    def mmap_refused(self, unique: int) -> None:
        if unique in self.mappings:
            self.mappings[unique].taken = False
            self._drop(self.mappings[unique])

    def _committed(self) -> Mapped | None:
        """Takes note of the COMMIT, and of the descriptor that came with it."""
        _, of, _, _, _, _, _, fd, _ = self.unpack(p.MMAP_COMMIT_IN)
        mapping = self.mappings.get(of)
        if mapping is None:
            self.strays.append(f"COMMIT of {of}")
            return None
        self.commits[self.unique()] = mapping
        mapping.committed = fd
        if mapping.handle == NEW and fd >= 0:
            node = self.server.names[mapping.name]
            mapping.handle = fd
            self.owned.add(fd)
            self._use(node, mapping)
            if self._policy(mapping).region == "shared":
                self.shared.setdefault(node, fd)
        return mapping

    def commit(self, _node: int, _length: int) -> Reply:
        mapping = self._committed()
        if mapping and mapping.committed is not None and mapping.committed < 0:
            mapping.ends.append("COMMIT")
            self._drop(mapping)
        return b""

    def refuse_commit(self, _node: int, _length: int) -> Reply:
        mapping = self._committed()
        if mapping:
            mapping.ends.append("ANSWER")
            self._drop(mapping)
        return b""

    def commit_refused(self, unique: int) -> None:
        mapping = self.commits.get(unique)
        if mapping and "ANSWER" in mapping.ends:
            mapping.ends.remove("ANSWER")

    def munmap(self, _node: int, _length: int) -> Reply:
        *_, of = self.tell_munmap()
        if of in self.mappings:
            mapping = self.mappings[of]
            if not mapping.ends:
                self._drop(mapping)
            mapping.ends.append("MUNMAP")
            if not self.server.options.record:
                self._forget(mapping)
        else:
            self.strays.append(f"MUNMAP of {of}")
        return b""

    def _forget(self, mapping: Mapped) -> None:
        # Nothing grows while times are taken: neither the tables nor the collector's work.
        del self.mappings[mapping.unique]
        self.commits = {one: other for one, other in self.commits.items() if other is not mapping}

    # ------------------------------------------------------------ read(2) and write(2)

    def _serving(self, node: int) -> int | None:
        return self.newest.get(node) if self.policies.get(node, Policy()).serve else None

    def read(self, node: int, length: int) -> Reply | None:
        handle = self._serving(node)
        if handle is None:
            return self.server.read(node, length)
        _, offset, size, *_ = self.unpack(p.READ_IN)
        if not self.server.ids:
            return _peep(handle, offset, size)
        notify, failed = self._retrieve(handle, offset, size)
        if failed:
            return -failed
        self.reading[notify] = self.unique()
        return None

    def write(self, node: int, length: int) -> Reply | None:
        handle = self._serving(node)
        if handle is None:
            return self.server.write(node, length)
        _, offset, size, *_ = self.unpack(p.WRITE_IN)
        failed = self.put(handle, offset, bytes(self.server.written(size)))
        return -failed if failed else p.WRITE_OUT.pack(size, 0)

    # ------------------------------------------------------------ data of a region

    def put(self, handle: int, offset: int, data: bytes) -> int:
        """0, or the errno."""
        if not self.server.ids:
            return _poke(handle, offset, data)
        head = p.MAP_STORE_OUT.pack(handle, offset, len(data), 0)
        return self.server.told_kernel([p.notification(Notify.MAP_STORE, head + data)])

    def _retrieve(self, handle: int, offset: int, size: int) -> tuple[int, int]:
        """The number under which the data will come, and the errno if it will not."""
        self.next_notify += 1
        notify = self.next_notify
        return notify, self._ask(notify, handle, offset, size)

    def _ask(self, notify: int, handle: int, offset: int, size: int) -> int:
        request = p.MAP_RETRIEVE_OUT.pack(notify, handle, offset, size, 0)
        return self.server.told_kernel([p.notification(Notify.MAP_RETRIEVE, request)])

    def fetch(self, handle: int, offset: int, size: int, then: Callable[[bytes], object]) -> None:
        """RETRIEVE; ``then`` is called with the data by the thread that serves, which cannot wait.

        Raises OSError when there will be none.
        """
        with self.server.changed:
            self.next_notify += 1
            notify = self.next_notify
            self.fetching[notify] = then
        failed = self._ask(notify, handle, offset, size)
        if failed:
            del self.fetching[notify]
            raise OSError(failed, "RETRIEVE")

    def notify_reply(self, _node: int, _length: int) -> Reply:
        notify = self.unique()
        _, offset, size, *_ = self.unpack(p.RETRIEVE_IN)
        data = bytes(self.server.view[_DATA : _DATA + size])
        if notify in self.fetching:
            self.fetching.pop(notify)(data)
        elif notify in self.reading:
            self.server.send(Op.READ, self.reading.pop(notify), data)
        else:
            self.retrieved[notify] = (offset, data)
            self.server.changed.notify_all()
        return b""

    # ------------------------------------------------------------ control

    def do_policy(self, name: str, **changes: Any) -> dict[str, Any]:
        with self.server.changed:
            node = self.server.names[name]
            self.policies[node] = replace(self.policies.get(node, Policy()), **changes)
        return {}

    def do_mappings(self, forget: bool) -> dict[str, Any]:
        with self.server.changed:
            found = [asdict(one) for one in self.mappings.values()]
            strays = list(self.strays)
            if forget:
                self.mappings = {n: one for n, one in self.mappings.items() if not one.ends}
                self.strays.clear()
        return {"mappings": found, "strays": strays}

    def do_load(self, handle: int, offset: int, size: int) -> dict[str, Any]:
        if not self.server.ids:
            return {"errno": 0, "offset": offset, "hex": _peep(handle, offset, size).hex()}
        with self.server.changed:
            notify, failed = self._retrieve(handle, offset, size)
            if failed:
                return {"errno": failed, "offset": offset, "hex": ""}
            if not self.server.changed.wait_for(lambda: notify in self.retrieved, _PATIENCE):
                raise OSError(errno.ETIMEDOUT, "RETRIEVE brought no NOTIFY_REPLY")
            at, data = self.retrieved.pop(notify)
        return {"errno": 0, "offset": at, "hex": data.hex()}

    def do_store(self, handle: int, offset: int, data: str) -> dict[str, Any]:
        return {"errno": self.put(handle, offset, bytes.fromhex(data))}

    def do_make(self, kind: str, size: int) -> dict[str, Any]:
        return {"fd": descriptors.KINDS[kind](size)}

    def do_limit(self, limited: bool) -> dict[str, Any]:
        descriptors.limit_files(limited)
        return {}


def _peep(fd: int, offset: int, size: int) -> bytes:
    """What a region holds, as far as it goes. Raises OSError."""
    length = os.fstat(fd).st_size
    with libc.Map(fd, length, libc.READ) as map_:
        return bytes(map_.view[offset : min(offset + size, length)])


def _poke(fd: int, offset: int, data: bytes) -> int:
    """0, or the errno."""
    try:
        with libc.Map(fd, os.fstat(fd).st_size) as map_:
            if offset + len(data) > map_.length:
                return errno.EINVAL
            map_.view[offset : offset + len(data)] = data
    except OSError as error:
        return error.errno or errno.EIO
    return 0
