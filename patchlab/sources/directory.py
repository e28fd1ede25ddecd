# SPDX-License-Identifier: GPL-2.0-or-later
"""``kind = "directory"``: a user's plain source tree, perhaps changed and built in.

It is copied, and never written to. What its ``.gitignore`` files name is a built product and
is left out, as is ``.git``; git itself reads them, in the sandbox, where the tree is
read-only. The key is the content of the rest, so that building in the tree makes no new base.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from patchlab import proc, scratch
from patchlab.errors import LostInstrument
from patchlab.model import Base, DirectorySource
from patchlab.paths import Cache
from patchlab.progress import Progress
from patchlab.sandbox import bubblewrap
from patchlab.sources import digests
from patchlab.sources.digests import Memory
from patchlab.sources.found import TREE, Found, fault, lacks_of_a_kernel, short
from patchlab.store import content

_LIST = 600.0
_RECIPE = "1"  # part of every key: raise it when an entry gets other files
_INSIDE = Path("/lab")
# What a build leaves and no source has, for a tree without .gitignore files.
_BUILT = (
    "*.o",
    "*.a",
    "*.ko",
    "*.mod",
    "*.mod.c",
    ".*.cmd",
    ".*.d",
    "*.order",
    ".tmp_*",
    "/include/config/",
    "/include/generated/",
    "/arch/*/include/generated/",
    "/vmlinux*",
    "/System.map",
    "/Module.symvers",
    "/modules.*",
    "/.config*",
    "bzImage",
    "vmlinux.bin*",
    ".missing-syscalls.d",
)
# Debian's source has "/*" in its .gitignore, because its own repository holds only debian/.
_ALL_OF_TOP = ("!/*", *_BUILT)


def find(base: Base, source: DirectorySource, cache: Cache) -> Found:
    """Digest the tree; files that did not change since the last time are not read again.

    Raises UsageError for a folder that is not there or is no kernel's source.
    """
    path = source.path
    if not path.is_dir():
        hint = "paths start at the folder of this file"
        raise fault(base, "path", f"path: {path}: no such folder", hint=hint)
    makefile = path / "Makefile"
    text = makefile.read_text(errors="replace") if makefile.is_file() else None
    if lack := lacks_of_a_kernel(text, [child.name for child in path.iterdir()]):
        message = f"path: {path} is no kernel's source: {lack}"
        raise fault(base, "path", message, hint="name the top folder of a kernel tree")
    files = _digested(path, cache)
    digest = _digest(files)

    def fill(to: Path, _cache: Cache, progress: Progress) -> None:
        with progress.step(f"copy {path}"):
            _copy(path, files, to / TREE)

    key = f"directory_{content.digest(_RECIPE, digest)}"
    return Found(key, "directory", f"{path.name} {short(digest)}", digest, fill)


def _digested(path: Path, cache: Cache) -> Memory:
    before = digests.load(path, cache)
    files: Memory = {}
    for name in _names(path, cache):
        try:
            files[name] = digests.of(f"{path}/{name}", before.get(name))
        except OSError as error:
            raise LostInstrument(
                f"{path / name}: {error.strerror}", hint="is the tree being changed? Try again"
            ) from error
    if files != before:
        digests.store(path, cache, files)
    return files


def _digest(files: Mapping[str, digests.Seen]) -> str:
    hasher = hashlib.sha256()
    for name in sorted(files):
        executable = bool(files[name].mode & stat.S_IXUSR)
        hasher.update(b"%s\0%d" % (os.fsencode(name), executable))
        hasher.update(files[name].sha256)
    return hasher.hexdigest()


def _names(path: Path, cache: Cache) -> list[str]:
    """Every file of the tree that is source."""
    with scratch.folder("try", cache.room("tmp")) as own:
        _git(["init", "--quiet", "--bare", "--template=", f"{_INSIDE}/git"], path, own)
        names = _listed(path, own, _BUILT)
        return names if "Makefile" in names else _listed(path, own, _ALL_OF_TOP)


def _listed(path: Path, own: Path, patterns: tuple[str, ...]) -> list[str]:
    said = _git(
        [
            f"--git-dir={_INSIDE}/git",
            f"--work-tree={path}",
            *("ls-files", "-z", "--others", "--exclude-per-directory=.gitignore"),
            *(f"--exclude={pattern}" for pattern in patterns),
        ],
        path,
        own,
    )
    # A name that ends in a slash is a repository inside the tree: no part of the kernel.
    return [name for name in said.split("\0") if name and not name.endswith("/")]


def _git(words: list[str], path: Path, own: Path) -> str:
    env = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_OPTIONAL_LOCKS": "0"}
    argv = ["git", "-c", "safe.directory=*", *words]
    box = bubblewrap(argv, cwd=path, read=(path,), write={_INSIDE: own}, env=env)
    return proc.run(box, deadline=_LIST).output


def _copy(path: Path, files: Mapping[str, digests.Seen], to: Path) -> None:
    """Copy what was digested; LostInstrument when a file is no longer as it was."""
    to.mkdir()
    for name, seen in files.items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path / name, to / name, follow_symlinks=False)
            shutil.copymode(path / name, to / name, follow_symlinks=False)
            same = seen.same((path / name).lstat())
        except OSError:
            same = False
        if not same:
            raise LostInstrument(
                f"{path / name} changed while {path} was copied",
                hint="leave the tree alone for a minute, and try again",
            )
