# SPDX-License-Identifier: GPL-2.0-or-later
"""``kind = "git"``: a commit of a user's repository, which is only ever read.

Every git that sees the repository runs in the sandbox, where it is read-only, and where
there is no network to fetch a missing object from. Files are taken out by a git that does
not see it at all: an empty repository of the lab's own, which has the user's objects as its
alternates. So no hook, filter or setting of the user's can run or count, and its own
``info/attributes``, which come first, switch off those of the tree that would alter a file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchlab import proc, scratch
from patchlab.errors import LostInstrument
from patchlab.model import Base, GitSource
from patchlab.paths import Cache
from patchlab.progress import Progress
from patchlab.sandbox import bubblewrap
from patchlab.sources import archive
from patchlab.sources.found import TREE, Found, fault, lacks_of_a_kernel, short
from patchlab.store import content

_QUICK = 60.0
_ARCHIVE = 1800.0
_RECIPE = "1"  # part of every key: raise it when an entry gets other files
_INSIDE = Path("/lab")  # where the lab's own repository is in the sandbox
_NEAR = 5
_ENVIRONMENT = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",  # for a git that does not know GIT_NO_LAZY_FETCH
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
}
_SETTINGS = (
    "-c",
    "safe.directory=*",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
)
# gitattributes(5): all that would give a file other bytes than the commit has, or leave it out.
_ATTRIBUTES = "* -text !eol -ident -filter !working-tree-encoding -export-subst -export-ignore\n"


@dataclass(frozen=True, slots=True)
class _Repository:
    folder: Path  # git's own: .git, or that of a linked work tree
    common: Path  # where objects and refs are
    shown: tuple[Path, ...]  # all that the sandbox must show, read-only

    def git(self, *words: str, ok: Sequence[int] = (0,)) -> proc.Completed:
        argv = ["git", *_SETTINGS, f"--git-dir={self.folder}", *words]
        box = bubblewrap(argv, cwd=self.common, read=self.shown, env=_ENVIRONMENT)
        return proc.run(box, deadline=_QUICK, ok=ok)


def find(base: Base, source: GitSource, _cache: Cache) -> Found:
    """Resolve the ref. UsageError when it, or the repository, or a kernel in it, is not there."""
    repository = _open(base, source)
    said = repository.git(
        "rev-parse", "--verify", "--quiet", f"{source.ref}^{{commit}}", ok=(0, 1, 128)
    )
    if said.code:
        message, hint = _no_ref(source, repository)
        raise fault(base, "ref", message, hint=hint)
    commit = said.output.strip()
    tree = repository.git("rev-parse", "--verify", f"{commit}^{{tree}}").output.strip()
    _require_kernel(base, source, repository, tree)

    def fill(to: Path, cache: Cache, progress: Progress) -> None:
        with progress.step(f"read {source.ref} of {source.repository}"):
            _fill(source, repository, commit, to, cache)

    key = f"git_{content.digest(_RECIPE, tree)}"
    return Found(key, "git", f"{short(commit)} (ref {source.ref})", "", fill)


def _no_ref(source: GitSource, repository: _Repository) -> tuple[str, str]:
    listing = repository.git("for-each-ref", "--format=%(refname:short)").output.split()
    near = difflib.get_close_matches(source.ref, listing, n=_NEAR, cutoff=0.5)
    hint = f"near: {', '.join(near)}" if near else f"it has {len(listing)} branches and tags"
    hint += f"; git -C {source.repository} fetch gets what is new"
    return f"ref: {source.repository} has no commit '{source.ref}'", hint


def _require_kernel(base: Base, source: GitSource, repository: _Repository, tree: str) -> None:
    names = repository.git("ls-tree", "-z", "--name-only", tree).output.split("\0")
    shown = repository.git("cat-file", "blob", f"{tree}:Makefile", ok=(0, 128))
    if shown.code and "Makefile" in names:
        raise _incomplete(source, tree, shown.output)
    if lack := lacks_of_a_kernel(None if shown.code else shown.output, names):
        message = f"ref: '{source.ref}' of {source.repository} is no kernel's source: {lack}"
        raise fault(base, "ref", message, hint="name another ref or repository")


def _open(base: Base, source: GitSource) -> _Repository:
    """Find git's folders by reading alone."""
    path = source.repository
    if not path.is_dir():
        hint = "name the folder of your clone; paths start at the folder of this file"
        raise fault(base, "repository", f"repository: {path}: no such folder", hint=hint)
    folder = _git_folder(path)
    if folder is None:
        hint = "name the folder that holds .git, or a bare repository"
        raise fault(base, "repository", f"repository: {path} is no git repository", hint=hint)
    named = folder / "commondir"
    common = (folder / named.read_text().strip()).resolve() if named.is_file() else folder
    return _Repository(folder, common, tuple(dict.fromkeys([folder, common, *_alternates(common)])))


def _git_folder(path: Path) -> Path | None:
    found = (path / ".git").resolve()
    if found.is_file():  # a linked work tree, or a submodule
        match = re.fullmatch(r"gitdir: (.+)\n?", found.read_text(errors="replace"))
        found = (path / match[1]).resolve() if match else found
    elif not found.is_dir():
        found = path.resolve()
    return found if (found / "HEAD").exists() and found.is_dir() else None


def _alternates(common: Path) -> list[Path]:
    """Other objects folders that this repository borrows from (gitrepository-layout(5))."""
    found: list[Path] = []
    pending = [common / "objects"]
    while pending:
        objects = pending.pop()
        file = objects / "info" / "alternates"
        lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
        for line in lines:
            path = (objects / line).resolve()
            if line and not line.startswith("#") and path.is_dir() and path not in found:
                found.append(path)
                pending.append(path)
    return found


def _fill(source: GitSource, repository: _Repository, commit: str, to: Path, cache: Cache) -> None:
    form = repository.git("rev-parse", "--show-object-format").output.strip()
    with scratch.folder("try", cache.room("tmp")) as own:
        own_git = ["git", *_SETTINGS, f"--git-dir={_INSIDE}/git"]
        _boxed(
            [
                "git",
                "init",
                "--quiet",
                "--bare",
                f"--object-format={form}",
                "--template=",
                f"{_INSIDE}/git",
            ],
            own,
            (),
        )
        (own / "git/info").mkdir(exist_ok=True)
        (own / "git/info/attributes").write_text(_ATTRIBUTES)
        (own / "git/objects/info").mkdir(exist_ok=True)
        (own / "git/objects/info/alternates").write_text(f"{repository.common / 'objects'}\n")
        tar = [
            *own_git,
            "-c",
            "tar.umask=0022",
            "archive",
            "--format=tar",
            f"--output={_INSIDE}/source.tar",
            commit,
        ]
        try:
            _boxed(tar, own, repository.shown)
        except proc.CommandFailed as error:
            raise _incomplete(source, commit, error.tail) from error
        archive.unpack(own / "source.tar", to / TREE, strip=0)


def _incomplete(source: GitSource, name: str, said: str) -> LostInstrument:
    return LostInstrument(
        f"{source.repository}: {short(name)} cannot be read whole\n{said.strip()}",
        hint="a partial or damaged clone lacks objects: git fsck says which; "
        "a partial one gets them with git fetch --refetch",
    )


def _boxed(argv: list[str], own: Path, read: Sequence[Path]) -> None:
    box = bubblewrap(argv, cwd=_INSIDE, read=read, write={_INSIDE: own}, env=_ENVIRONMENT)
    proc.run(box, deadline=_ARCHIVE)
