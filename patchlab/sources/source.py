# SPDX-License-Identifier: GPL-2.0-or-later
"""A base's source tree, unpacked once into the cache and never written to."""

from __future__ import annotations

import lzma
import os
from pathlib import Path

from patchlab import full
from patchlab.building import kconfig
from patchlab.errors import UsageError
from patchlab.model import (
    Base,
    DebianSource,
    DebSource,
    DirectorySource,
    GitSource,
    ReferenceConfig,
    SourceTree,
    TarballSource,
)
from patchlab.paths import Cache
from patchlab.progress import Progress
from patchlab.sources import apt, archive, debian, directory, git, image, pristine
from patchlab.sources.found import TREE, Found
from patchlab.store import content

_CONFIG = "config"
_DATE = 1_000_000_000  # seconds: 2001-09-09


def find(base: Base, cache: Cache) -> Found:
    """What the source of ``base`` is right now; the first answer holds for this Base.

    Fast but for the first time that a file or folder is seen, which is then read. Raises
    UsageError, with file and line, for a file, folder, commit or digest that is not there,
    and MissingTool when apt does not know the package.
    """
    where = str(cache.folder)
    found = base.seen.get(where)
    if not isinstance(found, Found):
        try:
            found = base.seen[where] = _find(base, cache)
        except OSError as error:
            if full.is_full(error):
                raise
            hint = "the lab reads it as you: look at its owner and mode"
            raise UsageError(f"base '{base.name}': {error}", hint=hint) from error
    return found


def _find(base: Base, cache: Cache) -> Found:
    match base.source:
        case DebianSource() as source:
            return debian.find(base, source, cache)
        case DebSource() as source:
            return archive.find_deb(base, source, cache)
        case TarballSource() as source:
            return archive.find_tarball(base, source, cache)
        case GitSource() as source:
            return git.find(base, source, cache)
        case DirectorySource() as source:
            return directory.find(base, source, cache)
        case source:
            return image.find(base, source, cache)


def key(base: Base, cache: Cache) -> str:
    """Names the content of the source. Raises what find() raises."""
    return find(base, cache).key


def fetch(base: Base, cache: Cache, progress: Progress) -> SourceTree:
    """The source tree of ``base``, from the cache or fetched now (a minute or two).

    Raises what find() raises, LostInstrument when it cannot be fetched or unpacked, and
    UsageError when it turns out to be no kernel's source. Then nothing is published.
    """
    found = find(base, cache)

    def fill(to: Path) -> None:
        found.fill(to, cache, progress)
        if not isinstance(base.source, DebianSource):
            _date(to / TREE)
        pristine.record(to / TREE)

    folder = content.publish(cache.room("sources"), found.key, fill)
    return SourceTree(folder / TREE, found.key, found.package, found.version, found.sha256)


def _date(tree: Path) -> None:
    """Give every file one old date: make goes by dates, and a user's may lie in the future."""
    for folder, _, names in os.walk(tree):
        for name in names:
            os.utime(f"{folder}/{name}", (_DATE, _DATE), follow_symlinks=False)


def words(base: Base) -> str:
    """The source as its TOML file declares it, in a few words; nothing is looked at."""
    match base.source:
        case DebianSource() as source:
            return f"Debian {source.package}"
        case DebSource() | TarballSource() as source:
            return f"{'package' if isinstance(source, DebSource) else 'tarball'} {source.file.name}"
        case GitSource() as source:
            return f"git {source.repository}, ref {source.ref}"
        case DirectorySource() as source:
            return f"directory {source.path}"
        case source:
            return f"image {source.bzimage}"


def reference_config(base: Base, cache: Cache) -> dict[str, str] | None:
    """The distribution's own .config, option -> value; None if the base names none."""
    reference = base.reference
    if reference is None:
        return None
    return kconfig.parse(_reference(reference, cache).read_text(encoding="utf-8"))


def start_config(base: Base, cache: Cache) -> str | None:
    """The .config that the base's starts from, its modules left out; None is tinyconfig."""
    reference = base.reference
    if reference is None or not reference.whole:
        return None
    return kconfig.without_modules(_reference(reference, cache).read_text(encoding="utf-8"))


def start_version(base: Base, cache: Cache) -> str:
    """What decides start_config(), and is known without it: "" for tinyconfig."""
    reference = base.reference
    if reference is None or not reference.whole:
        return ""
    version = apt.candidate(reference.package, cache).version
    return f"{reference.package} {version} {reference.path}"


def _reference(reference: ReferenceConfig, cache: Cache) -> Path:
    version = apt.candidate(reference.package, cache).version

    def unpack(to: Path) -> None:
        deb = apt.download(reference.package, to)
        packed = apt.extract(deb, reference.path, to)
        (to / _CONFIG).write_bytes(_plain(packed))
        packed.unlink()
        deb.path.unlink()

    name = debian.key_of(reference.package, version, reference.path)
    return content.publish(cache.room("sources"), name, unpack) / _CONFIG


def _plain(packed: Path) -> bytes:
    if packed.suffix == ".xz":
        return lzma.decompress(packed.read_bytes())
    return packed.read_bytes()
