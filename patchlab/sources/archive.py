# SPDX-License-Identifier: GPL-2.0-or-later
"""``kind = "deb"`` and ``kind = "tarball"``: archives that are files, named by their SHA-256."""

from __future__ import annotations

import re
from pathlib import Path

from patchlab import proc
from patchlab.errors import LostInstrument, UsageError
from patchlab.model import Base, DebSource, TarballSource
from patchlab.paths import Cache
from patchlab.progress import Progress
from patchlab.sources import digests
from patchlab.sources.found import TREE, Found, fault, lacks_of_a_kernel, require_file, short
from patchlab.store import content

_UNPACK = 1800.0
_QUERY = 300.0
_RECIPE = "1"  # part of every key: raise it when an entry gets other files
_SOURCE = re.compile(r"(?:\./)?(usr/src/linux-source-[^/]*\.tar(?:\.[a-z0-9]+)?)")
_SHOWN = 10


def find_tarball(base: Base, source: TarballSource, cache: Cache) -> Found:
    """Raises UsageError for a file that is not there, or is not the declared one."""
    _require(base, source.file, source.sha256, cache)

    def fill(to: Path, _cache: Cache, progress: Progress) -> None:
        with progress.step(f"unpack {source.file.name}"):
            _unpack_tree(base, source.file, to)

    key = f"tarball_{content.digest(_RECIPE, source.sha256)}"
    version = f"{source.file.name} {short(source.sha256)}"
    return Found(key, "tarball", version, source.sha256, fill)


def find_deb(base: Base, source: DebSource, cache: Cache) -> Found:
    """Raises UsageError for a file that is not there, not the declared one, or no package."""
    _require(base, source.file, source.sha256, cache)
    package, version = _named(base, source.file)

    def fill(to: Path, _cache: Cache, progress: Progress) -> None:
        with progress.step(f"unpack {source.file.name}"):
            tarball = _member(base, source, to)
            _unpack_tree(base, tarball, to)
            tarball.unlink()

    key = f"deb_{content.digest(_RECIPE, source.sha256, source.tarball)}"
    return Found(key, package, version, source.sha256, fill)


def unpack(tarball: Path, to: Path, *, strip: int) -> None:
    """Unpack without the first ``strip`` parts of each name. Raises LostInstrument."""
    to.mkdir()
    options = [f"--strip-components={strip}", "--no-same-owner"]
    try:
        proc.run(["tar", "-xf", str(tarball), "-C", str(to), *options], deadline=_UNPACK)
    except proc.CommandFailed as error:
        raise LostInstrument(
            f"{tarball} cannot be unpacked\n{error.tail}",
            hint="is the disk full? df -h; is the file cut off? fetch it again",
        ) from error


def _require(base: Base, file: Path, sha256: str, cache: Cache) -> None:
    require_file(base, "file", file)
    seen = digests.of_file(file, cache)
    if seen != sha256:
        message = f"sha256: {file} has {seen}, not {sha256}"
        raise fault(
            base, "sha256", message, hint="is it cut off, or another release? Fetch it again"
        )


def _named(base: Base, file: Path) -> tuple[str, str]:
    try:
        said = proc.run(
            ["dpkg-deb", "--field", str(file), "Package", "Version"], deadline=_QUERY
        ).output
    except proc.CommandFailed as error:
        message = f"file: {file} is no Debian package\n{error.tail.strip()}"
        raise fault(base, "file", message, hint='for an archive say kind = "tarball"') from error
    fields = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    return fields.get("Package", file.stem), fields.get("Version", "")


def _member(base: Base, source: DebSource, to: Path) -> Path:
    """Take the source's tarball out of the package, to a file in ``to``."""
    folder = to / "package"
    proc.run(["dpkg-deb", "--extract", str(source.file), str(folder)], deadline=_UNPACK)
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    wanted = source.tarball or _only(base, source, files)
    if wanted not in files:
        hint = f"the package has: {', '.join(sorted(files)[:_SHOWN])}"
        raise fault(base, "tarball", f"tarball: {source.file.name} has no file {wanted}", hint=hint)
    tarball = to / Path(wanted).name
    (folder / wanted).rename(tarball)
    proc.run(["rm", "-r", str(folder)], deadline=_QUERY)
    return tarball


def _only(base: Base, source: DebSource, files: list[str]) -> str:
    found = [match[1] for name in files if (match := _SOURCE.fullmatch(name))]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} files" if found else "no file"
    message = f"file: {source.file.name} has {what} usr/src/linux-source-*.tar.*"
    hint = f"name one as tarball = …: {', '.join(sorted(files)[:_SHOWN])}"
    raise fault(base, "file", message, hint=hint)


def _unpack_tree(base: Base, tarball: Path, to: Path) -> None:
    """Unpack to ``to/TREE``, and refuse what is no kernel's source."""
    names = _names(tarball)
    strip = 1 if len({name.split("/", 1)[0] for name in names}) == 1 else 0
    top = {"/".join(name.split("/")[strip:]) for name in names}
    if "Makefile" not in top:
        raise _no_kernel(base, tarball, "no Makefile")
    unpack(tarball, to / TREE, strip=strip)
    makefile = to / TREE / "Makefile"
    text = makefile.read_text(errors="replace") if makefile.is_file() else None
    if lack := lacks_of_a_kernel(text, [path.name for path in (to / TREE).iterdir()]):
        raise _no_kernel(base, tarball, lack)


def _no_kernel(base: Base, tarball: Path, lack: str) -> UsageError:
    return fault(
        base, "file", f"{tarball.name} is no kernel's source: {lack}", hint="name another file"
    )


def _names(tarball: Path) -> list[str]:
    """All names in the archive, without ``./``. Reads all of it, so a cut-off one is found."""
    try:
        said = proc.run(["tar", "-tf", str(tarball)], deadline=_UNPACK).output
    except proc.CommandFailed as error:
        raise LostInstrument(
            f"{tarball} cannot be read as an archive\n{error.tail}",
            hint="is it cut off? Fetch it again; tar needs xz or zstd for such an archive",
        ) from error
    return [name for line in said.splitlines() if (name := line.removeprefix("./").rstrip("/"))]
