# SPDX-License-Identifier: GPL-2.0-or-later
"""What a mount has and a device has not: one folder of regular files, by name."""

from __future__ import annotations

import errno
import stat

from guest.fuse import protocol as p
from guest.fuse.protocol import Op
from guest.fuse.server import HEADER, Reply, Server, resize


class Folder:
    """Adds itself to ``server``."""

    def __init__(self, server: Server) -> None:
        self.server = server
        server.handlers |= {
            Op.LOOKUP: self.lookup,
            Op.GETATTR: lambda node, _: self.attributes(node),
            Op.SETATTR: self.setattr,
            Op.STATFS: lambda _, __: p.STATFS_OUT.pack(
                0, 0, 0, 0, 0, 4096, 255, 4096, 0, *(0,) * 6
            ),
            Op.OPENDIR: lambda _, __: p.OPEN_OUT.pack(0, 0, 0),
            Op.READDIR: self.readdir,
        }

    def pack_attr(self, node: int) -> tuple[int, ...]:
        file = self.server.nodes.get(node)
        size = len(file.data) if file else 0
        seconds, nanoseconds = divmod(file.mtime if file else 0, 10**9)
        mode = stat.S_IFREG | 0o777 if file else stat.S_IFDIR | 0o755
        links = 1 if file else 2
        times = (*(seconds,) * 3, *(nanoseconds,) * 3)
        return (node, size, (size + 511) // 512, *times, mode, links, 0, 0, 0, 4096, 0)

    def attributes(self, node: int) -> Reply:
        if node != p.ROOT_ID and node not in self.server.nodes:
            return -errno.ESTALE
        return p.ATTR_OUT.pack(self.server.options.attr_timeout, 0, 0, *self.pack_attr(node))

    def lookup(self, _node: int, length: int) -> Reply:
        name = bytes(self.server.view[HEADER : length - 1]).decode("utf-8", "surrogateescape")
        if name not in self.server.names:
            return -errno.ENOENT
        node, options = self.server.names[name], self.server.options
        timeouts = (options.entry_timeout, options.attr_timeout, 0, 0)
        return p.ENTRY_OUT.pack(node, 0, *timeouts, *self.pack_attr(node))

    def setattr(self, node: int, _length: int) -> Reply:
        valid, _, _, size, *_ = p.SETATTR_IN.unpack_from(self.server.view, HEADER)
        if valid & p.FATTR_SIZE and node in self.server.nodes:
            resize(self.server.nodes[node], size)
        return self.attributes(node)

    def readdir(self, _node: int, _length: int) -> Reply:
        _, offset, size, *_ = p.READ_IN.unpack_from(self.server.view, HEADER)
        out = b""
        for number, (name, node) in enumerate(self.server.names.items(), 1):
            raw = name.encode("utf-8", "surrogateescape")
            entry = p.DIRENT.pack(node, number, len(raw), stat.S_IFREG >> 12) + raw
            entry += bytes(-len(entry) % 8)
            if number > offset:
                if len(out) + len(entry) > size:
                    break
                out += entry
        return out
