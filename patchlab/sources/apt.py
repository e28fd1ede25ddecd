# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages by the host's own apt, which checks their signatures. No root needed.

No mirror is named here: it is whatever the host's apt is configured for.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from patchlab import proc, scratch
from patchlab.errors import LostInstrument, MissingTool
from patchlab.paths import Cache
from patchlab.store import content

_QUERY = 60.0
_DOWNLOAD = 3600.0
_UNPACK = 600.0
_UNKNOWN = 100  # apt's exit code for every error
# apt's answer can change only when one of these does (apt.conf(5), dpkg(1)).
_STATE = (
    "/etc/apt",
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d",
    "/etc/apt/preferences",
    "/etc/apt/preferences.d",
    "/var/lib/apt/lists",
    "/var/lib/dpkg/status",
)
_TARGET = "$(CREATED_BY)\t$(ORIGIN)\t$(LABEL)\t$(COMPONENT)\t$(CODENAME)\t$(REPO_URI)"


@dataclass(frozen=True, slots=True)
class Candidate:
    """The version of a package that apt would install."""

    package: str
    version: str
    sha256: str  # of the .deb, from apt's signed index


@dataclass(frozen=True, slots=True)
class DebFile:
    path: Path
    package: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class AptMirror:
    """Where this host takes Debian itself from."""

    uri: str
    suite: str  # codename of the host's own release
    components: tuple[str, ...]


def candidate(package: str, cache: Cache | None = None) -> Candidate:
    """What apt would install. Raises MissingTool for a package that it does not know.

    apt needs a second for it where it may not keep its own cache. With ``cache``, the
    answer is kept there for as long as apt's configuration and indexes stay as they are.
    """
    if cache is None:
        return _ask(package)
    memory = cache.room("hosts") / f"apt-{content.digest(package, *_state())}.json"
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
        return msgspec.json.decode(memory.read_bytes(), type=Candidate)
    found = _ask(package)
    scratch.write(memory, msgspec.json.encode(found).decode())
    return found


def download(package: str, to: Path) -> DebFile:
    """Fetch the candidate of ``package`` into the folder ``to``.

    Raises MissingTool for a package that apt does not know, LostInstrument when it cannot
    be fetched or is not the file of apt's index.
    """
    wanted = candidate(package)
    with _drop_folder() as folder:
        try:
            proc.run(
                ["apt-get", "download", "-qq", f"{package}={wanted.version}"],
                deadline=_DOWNLOAD,
                cwd=folder,
            )
        except proc.CommandFailed as error:
            raise LostInstrument(
                f"apt could not fetch {package} {wanted.version}\n{error.tail}",
                hint="is the network up? If the mirror has moved on: apt-get update",
            ) from error
        [file] = folder.glob("*.deb")
        path = Path(shutil.move(file, to / file.name))
    seen = _sha256(path)
    if seen != wanted.sha256:
        raise LostInstrument(
            f"{path.name}: SHA-256 is {seen}, apt's index says {wanted.sha256}",
            hint="apt-get update, then try again",
        )
    return DebFile(path, package, wanted.version, seen)


def extract(deb: DebFile, member: str, to: Path) -> Path:
    """Unpack one file of a package to ``to/<its name>``; LostInstrument if it has none."""
    with tempfile.TemporaryDirectory(dir=to) as folder:
        proc.run(["dpkg-deb", "--extract", str(deb.path), folder], deadline=_UNPACK)
        found = Path(folder) / member
        if not found.is_file():
            raise LostInstrument(
                f"{deb.package} {deb.version} has no file {member}",
                hint=f"dpkg-deb --contents of the package lists them; "
                f"correct the path in the base's TOML (package {deb.package})",
            )
        return found.rename(to / found.name)


def mirror() -> AptMirror:
    """The Debian archive in the host's apt configuration.

    Raises MissingTool when it has none with the component ``main``.
    """
    listing = proc.run(["apt-get", "indextargets", "--format", _TARGET], deadline=_QUERY)
    found = _archive(listing.output)
    if found is None:
        raise MissingTool(
            "this host's apt knows no Debian archive with the component main",
            hint="add one to /etc/apt/sources.list.d, then apt-get update",
        )
    return found


def _archive(listing: str) -> AptMirror | None:
    """The first repository in indextargets' answer that is Debian itself, not an addition."""
    rows = [row.split("\t") for row in listing.splitlines()]
    components: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if len(row) == 6 and row[:3] == ["Packages", "Debian", "Debian"]:
            _, _, _, component, suite, uri = row
            components.setdefault((uri, suite), []).append(component)
    for (uri, suite), names in components.items():
        if "main" in names and "-" not in suite:
            return AptMirror(uri.rstrip("/"), suite, tuple(dict.fromkeys(names)))
    return None


def _ask(package: str) -> Candidate:
    answer = proc.run(
        ["apt-cache", "show", "--no-all-versions", package], deadline=_QUERY, ok=(0, _UNKNOWN)
    )
    fields = _fields(answer.output)
    # For a name with a dot that it does not know, apt shows what matches it as a pattern:
    # on Debian 13 linux-source-6.12 for linux-source-6.1.
    known = answer.code != _UNKNOWN and fields.get("Package") == package
    if not known or not {"Version", "SHA256"} <= fields.keys():
        raise MissingTool(
            f"apt knows no package {package}",
            hint="apt-get update (as root); linux-source-6.12 is in Debian 12 "
            "(bookworm-security) and 13 (trixie), linux-source-6.1 in 12 only",
        )
    return Candidate(package, fields["Version"], fields["SHA256"])


def _fields(stanza: str) -> Mapping[str, str]:
    """The one-line fields of the first stanza of a Debian control file."""
    first = stanza.strip().split("\n\n", 1)[0]
    return dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", first, re.MULTILINE))


def _state() -> Iterator[str]:
    for name in _STATE:
        with contextlib.suppress(OSError):
            status = Path(name).stat()
            yield f"{name} {status.st_mtime_ns} {status.st_size}"


@contextlib.contextmanager
def _drop_folder() -> Iterator[Path]:
    """A folder that apt's own unprivileged user can write to when apt is run as root.

    It is below the system's folder for temporary files, because the cache may be below a
    home that this user cannot enter.
    """
    with scratch.folder("drop") as folder:
        if os.geteuid() == 0:
            with contextlib.suppress(LookupError):
                shutil.chown(folder, "_apt")
        yield folder


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
