# SPDX-License-Identifier: GPL-2.0-or-later
"""``kind = "debian"``: a package of the host's own apt."""

from __future__ import annotations

from pathlib import Path

import msgspec

from patchlab.errors import LostInstrument
from patchlab.model import Base, DebianSource
from patchlab.paths import Cache
from patchlab.progress import Progress
from patchlab.sources import apt, archive
from patchlab.sources.found import TREE, Found
from patchlab.store import content

_MANIFEST = "source.json"
_RECIPE = "2"  # part of every key: raise it when an entry gets other files


def find(_base: Base, source: DebianSource, cache: Cache) -> Found:
    """Asks apt which version it is, so a new point release is a new source. MissingTool."""
    wanted = apt.candidate(source.package, cache)

    def fill(to: Path, _cache: Cache, progress: Progress) -> None:
        _fill(source, wanted, to, progress)

    key = key_of(source.package, wanted.version, source.tarball)
    return Found(key, source.package, wanted.version, wanted.sha256, fill)


def key_of(package: str, version: str, member: str) -> str:
    unique = content.digest(_RECIPE, package, version, member)[:8]
    # A colon (an epoch) may stand in a version, and not in every path.
    return f"{package}_{version.replace(':', '~')}_{unique}"


def _fill(source: DebianSource, wanted: apt.Candidate, to: Path, progress: Progress) -> None:
    with progress.step(f"fetch {source.package}"):
        deb = apt.download(source.package, to)
    if deb.version != wanted.version:
        raise LostInstrument(
            f"apt offered {source.package} {wanted.version}, and then gave {deb.version}",
            hint="its index has changed in between: try again",
        )
    with progress.step(f"unpack {source.package} {deb.version}"):
        tarball = apt.extract(deb, source.tarball, to)
        deb.path.unlink()
        archive.unpack(tarball, to / TREE, strip=1)
        tarball.unlink()
    manifest = {"package": deb.package, "version": deb.version, "sha256": deb.sha256}
    (to / _MANIFEST).write_bytes(msgspec.json.encode(manifest))
