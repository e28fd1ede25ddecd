# SPDX-License-Identifier: GPL-2.0-or-later
"""What INIT offers a virtiofs server: it reads no /dev/fuse, so none of direct mmap."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path

import pytest

from guest.fuse import protocol
from patchlab import config, proc
from patchlab.building import build
from patchlab.model import Lab
from patchlab.paths import Cache
from patchlab.progress import Silent

pytestmark = pytest.mark.vm

# Debian 12 has it inside qemu-system-common; Debian 13's is another program, with other words.
SERVER = Path("/usr/lib/qemu/virtiofsd")
_PATIENCE = 60.0


@pytest.mark.parametrize("name", ["fuse-direct-mmap@v2", "fuse-direct-mmap@v3"])
def test_virtiofs_is_not_offered_direct_mmap(
    name: str, lab: Lab, cache: Cache, tmp_path: Path
) -> None:
    if not SERVER.exists():
        pytest.skip(f"no {SERVER}: this distribution's virtiofsd does not print the flags")
    image = build.build(config.find_variant(lab, name), lab, cache, Silent())
    shared = tmp_path / "shared"
    shared.mkdir()
    with tempfile.TemporaryDirectory() as short, (tmp_path / "server").open("wb") as log:
        socket = Path(short) / "s"
        server = [str(SERVER), "-d", f"--socket-path={socket}", "-o", f"source={shared}"]
        with proc.spawn([*server, "-o", "sandbox=chroot"], stdout=log.fileno()):
            _appears(socket)
            # Its root is the shared folder: INIT has been sent before the kernel misses init.
            proc.run(_qemu(image.bzimage, socket), deadline=_PATIENCE)
    said = (tmp_path / "server").read_text(errors="replace")
    offered = re.search(r"INIT: 7\.\d+\n.*flags=0x([0-9a-f]{16})$", said, re.MULTILINE)
    assert offered, said[-2000:]
    flags = int(offered[1], 16)
    assert flags & protocol.INIT_EXT
    assert not flags & (protocol.MMAP_FD | protocol.MMAP_ID)


def _appears(path: Path) -> None:
    limit = time.monotonic() + _PATIENCE
    while not path.exists():
        assert time.monotonic() < limit, "virtiofsd makes no socket"
        time.sleep(0.05)


def _qemu(kernel: Path, socket: Path) -> list[str]:
    return [
        *("qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "256M"),
        *("-machine", "q35,memory-backend=memory", "-nographic", "-no-reboot"),
        *("-object", "memory-backend-memfd,id=memory,size=256M,share=on"),
        *("-chardev", f"socket,id=server,path={socket}"),
        *("-device", "vhost-user-fs-pci,chardev=server,tag=root"),
        *("-kernel", str(kernel)),
        *("-append", "rootfstype=virtiofs root=root rw console=ttyS0 panic=-1"),
    ]
