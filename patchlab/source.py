# SPDX-License-Identifier: GPL-2.0-or-later
"""A base's source tree, unpacked once into the cache and never written to."""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from pathlib import Path

import msgspec

from patchlab import apt, kconfig, pristine, proc
from patchlab.errors import LostInstrument
from patchlab.model import Base, DebianSource, SourceTree
from patchlab.paths import Cache
from patchlab.progress import Progress
from patchlab.store import content

_TREE = "tree"
_MANIFEST = "source.json"
_CONFIG = "config"
_UNPACK = 1800.0
_RECIPE = "2"  # part of every key: raise it when an entry gets other files


class _Manifest(msgspec.Struct):
    package: str
    version: str
    sha256: str


def key(base: Base, cache: Cache) -> str:
    """Names the source by package, version and the tarball taken from it.

    Asks apt which version it is, so a new point release is a new source. Raises
    MissingTool when apt does not know the package.
    """
    version = apt.candidate(base.source.package, cache).version
    return _key(base.source.package, version, base.source.tarball)


def fetch(base: Base, cache: Cache, progress: Progress) -> SourceTree:
    """The source tree of ``base``, from the cache or fetched now (a minute or two).

    Raises MissingTool when apt does not know the package, LostInstrument when it cannot be
    fetched or unpacked.
    """
    name = key(base, cache)
    folder = content.publish(
        cache.room("sources"), name, lambda to: _unpack(base.source, to, progress)
    )
    manifest = msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=_Manifest)
    return SourceTree(folder / _TREE, name, manifest.package, manifest.version, manifest.sha256)


def reference_config(base: Base, cache: Cache) -> dict[str, str] | None:
    """The distribution's own .config, option -> value; None if the base names none."""
    reference = base.reference
    if reference is None:
        return None
    version = apt.candidate(reference.package, cache).version

    def unpack(to: Path) -> None:
        deb = apt.download(reference.package, to)
        packed = apt.extract(deb, reference.path, to)
        (to / _CONFIG).write_bytes(_plain(packed))
        packed.unlink()
        deb.path.unlink()

    name = _key(reference.package, version, reference.path)
    folder = content.publish(cache.room("sources"), name, unpack)
    return kconfig.parse((folder / _CONFIG).read_text(encoding="utf-8"))


def _key(package: str, version: str, member: str) -> str:
    unique = content.digest(_RECIPE, package, version, member)[:8]
    # A colon (an epoch) may stand in a version, and not in every path.
    return f"{package}_{version.replace(':', '~')}_{unique}"


def _unpack(source: DebianSource, to: Path, progress: Progress) -> None:
    with progress.step(f"fetch {source.package}"):
        deb = apt.download(source.package, to)
    with progress.step(f"unpack {source.package} {deb.version}"):
        tarball = apt.extract(deb, source.tarball, to)
        deb.path.unlink()
        unpack_tarball(tarball, to / _TREE)
        tarball.unlink()
        pristine.record(to / _TREE)
    _write_manifest(to, deb)


def unpack_tarball(tarball: Path, to: Path) -> None:
    """Unpack without the tarball's single top folder. Raises LostInstrument."""
    to.mkdir()
    try:
        proc.run(
            ["tar", "-xf", str(tarball), "-C", str(to), "--strip-components=1", "--no-same-owner"],
            deadline=_UNPACK,
        )
    except proc.CommandFailed as error:
        raise LostInstrument(
            f"{tarball.name} cannot be unpacked\n{error.tail}", hint="is the disk full? df -h"
        ) from error


def _write_manifest(to: Path, deb: apt.DebFile) -> None:
    manifest: Mapping[str, str] = {
        "package": deb.package,
        "version": deb.version,
        "sha256": deb.sha256,
    }
    (to / _MANIFEST).write_bytes(msgspec.json.encode(manifest))


def _plain(packed: Path) -> bytes:
    if packed.suffix == ".xz":
        return lzma.decompress(packed.read_bytes())
    return packed.read_bytes()
