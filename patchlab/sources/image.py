# SPDX-License-Identifier: GPL-2.0-or-later
"""``kind = "image"``: a kernel that is built already. Nothing is built; it is only booted."""

from __future__ import annotations

import hashlib
import re
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from patchlab.building import elf, kconfig
from patchlab.errors import UsageError
from patchlab.model import Base, Image, ImageSource, Machine
from patchlab.paths import Cache
from patchlab.progress import Progress
from patchlab.sources import digests
from patchlab.sources.found import Found, fault, require_file, short
from patchlab.store import content

_RECIPE = "1"  # part of every key: raise it when an entry gets other files
_RELEASE = re.compile(r"[\w.+~-]{1,64}", re.ASCII)

# What a guest of the lab needs to come up and answer, as built-in: there are no modules.
GUEST = (
    *("64BIT", "PCI", "ACPI", "TTY", "SERIAL_8250", "SERIAL_8250_CONSOLE", "DEVTMPFS"),
    *("VIRTIO_PCI", "VIRTIO_BLK", "VIRTIO_NET", "VIRTIO_CONSOLE", "BLK_DEV", "EXT4_FS"),
    *("OVERLAY_FS", "TMPFS", "PROC_FS", "SYSFS", "NET", "INET", "UNIX", "PACKET"),
    *("BINFMT_ELF", "BINFMT_SCRIPT", "UNIX98_PTYS", "MAGIC_SYSRQ"),
)
PMEM = (
    *("MEMORY_HOTPLUG", "ZONE_DEVICE", "LIBNVDIMM", "BLK_DEV_PMEM", "VIRTIO_PMEM"),
    *("DAX", "FS_DAX"),
)
_FILESYSTEMS = {"xfs": "XFS_FS", "ext4": "EXT4_FS"}


def find(base: Base, source: ImageSource, cache: Cache) -> Found:
    """Raises UsageError for a file that is not there, or is no bzImage."""
    sums = []
    for field, path in _files(source):
        require_file(base, field, path)
        sums.append(f"{field} {digests.of_file(path, cache)}")
    release_of(base, source)

    def fill(_to: Path, _cache: Cache, _progress: Progress) -> None:
        raise fault(base, "kind", f"base '{base.name}' has no source", hint="it is only booted")

    first = sums[0].split()[1]
    version = f"{source.bzimage.name} {short(first)}"
    return Found(f"image_{content.digest(_RECIPE, *sums)}", "image", version, first, fill)


def require_options(base: Base, source: ImageSource, machine: Machine) -> None:
    """Name what the lab needs and the kernel's config lacks. Without a config, nobody can say."""
    if source.config is None:
        return
    have = kconfig.parse(source.config.read_text(encoding="utf-8", errors="replace"))
    missing = tuple(_missing(have, machine))
    if missing:
        raise fault(
            base,
            "config",
            f"config: {source.config} lacks what the lab needs: {', '.join(missing)}",
            hint="set each to y and build the kernel again; the lab loads no modules",
        )


def _missing(have: Mapping[str, str], machine: Machine) -> Iterator[str]:
    wanted = list(GUEST)
    if machine.pmem:
        wanted += PMEM
    wanted += [_FILESYSTEMS[device.filesystem] for device in machine.pmem]
    for option in dict.fromkeys(wanted):
        got = have.get(option, kconfig.NOT_SET)
        if got != "y":
            yield f"CONFIG_{option} ({'is a module' if got == 'm' else 'not set'})"


def collect(base: Base, source: ImageSource, found: Found, key: str, to: Path) -> Image:
    """Copy the files to ``to``; what it says of itself. The other files are not there."""
    names = {"bzimage": "bzImage", "config": "config", "vmlinux": "vmlinux"}
    for field, path in _files(source):
        shutil.copyfile(path, to / names[field])
    digest = hashlib.sha256((to / "bzImage").read_bytes()).hexdigest()
    vmlinux = to / "vmlinux"
    return Image(
        key=key,
        variant="base",
        folder=to,
        release=release_of(base, source),
        source_package=found.package,
        source_version=found.version,
        patches=(),
        fragments=(),
        toolchain={},
        bzimage_sha256=digest,
        # Without an ELF file, only equal bytes are known to be equal code.
        code_sha256=elf.code_digest(vmlinux) if vmlinux.is_file() else digest,
        build_seconds=0.0,
        build_steps=0,
    )


def release_of(base: Base, source: ImageSource) -> str:
    """``uname -r``, from the boot header (Documentation/arch/x86/boot.rst, kernel_version)."""
    with source.bzimage.open("rb") as file:
        head = file.read(0x8000)
    if head[0x202:0x206] != b"HdrS":
        raise _no_bzimage(base, source)
    (offset,) = struct.unpack_from("<H", head, 0x20E)
    text = head[offset + 0x200 : offset + 0x280].split(b"\0", 1)[0].decode("ascii", "replace")
    release = text.split(" ", 1)[0]
    if not offset or not _RELEASE.fullmatch(release):
        raise _no_bzimage(base, source)
    return release


def _no_bzimage(base: Base, source: ImageSource) -> UsageError:
    message = f"bzimage: {source.bzimage} is no bzImage of x86"
    return fault(base, "bzimage", message, hint="it is arch/x86/boot/bzImage of a built tree")


def _files(source: ImageSource) -> Iterator[tuple[str, Path]]:
    """Those that there are; the bzImage first."""
    pairs = (("bzimage", source.bzimage), ("config", source.config), ("vmlinux", source.vmlinux))
    for field, path in pairs:
        if path is not None:
            yield field, path
