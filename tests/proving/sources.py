# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's own git tree is used as a base, end to end, and not one byte of it changes."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec

from patchlab import proc
from patchlab.building import build
from patchlab.model import DebianSource, GitSource, Variant
from patchlab.record import Outcome
from patchlab.sources import source
from patchlab.store import content
from tests.proving import desk, evidence
from tests.proving.desk import BASE, Proving, now

_REF = "topic"
_GIT = 600.0
_DIRTY = "fs/fuse/file.c"
_STAGED = "fs/fuse/staged.c"
_UNTRACKED = "fs/fuse/untracked.c"
# path -> mode, size, mtime and ctime in nanoseconds, SHA-256 of what is in it
Listing = dict[str, tuple[int, int, int, int, str]]


class OwnTree(msgspec.Struct, frozen=True):
    """What came of a user's tree."""

    key: str
    image: str  # its key
    source: str  # as reports say it
    release: str
    files: int
    size: int  # bytes
    changed: tuple[str, ...]
    outcome: Outcome
    reason: str
    steps: int
    build_seconds: float
    commit: str
    when: str

    @property
    def held(self) -> bool:
        named = self.release.endswith("-own")  # so this commit was built, and no other
        return not self.changed and self.outcome is Outcome.PASSED and named


def sources(proving: Proving) -> list[str]:
    """A git tree that is dirty in every way gives a base, an image and a boot, and stays."""
    file = proving.evidence / "sources.json"
    key = _key(proving)
    done = [one for one in evidence.load(file, OwnTree) if one.held and one.key == key]
    if not done:
        done = [_shown(proving, key)]
        evidence.store(file, "sources", done)
    evidence.write(file.with_suffix(".md"), page(done[0]))
    said = f"{len(done[0].changed)} paths changed, {done[0].outcome} boot of {done[0].release}"
    return [] if done[0].held else [f"a user's git tree: {said}: {evidence.line(done[0].reason)}"]


def page(shown: OwnTree) -> str:
    changed = ", ".join(f"`{evidence.line(path)}`" for path in shown.changed[:20]) or "none"
    return f"""\
# A user's own git tree, used and left alone

A repository of {shown.files} files and folders ({shown.size / 1e9:.1f} GB, git's own among them)
was a base: its branch `{_REF}` was built and booted, while `main` was checked out, one file was
dirty, one staged and one untracked; each of the three would have stopped the compiler. Before and
after, every path's mode, size, mtime, ctime and content were listed.

| what | seen |
|---|---|
| source | `{evidence.line(shown.source)}` |
| image | `{shown.image}`, {shown.release}, {shown.steps} steps in {shown.build_seconds:.0f} s |
| boot | {shown.outcome} {f"`{evidence.line(shown.reason)}`" if shown.reason else ""} |
| paths that are not as they were | {changed} |

Shown {shown.when} at commit `{shown.commit}`.
"""


def _key(proving: Proving) -> str:
    """Names what the claim rests on: the code that reads sources, and the source itself."""
    code = sorted((desk.REPOSITORY / "patchlab" / "sources").glob("*.py"))
    arm = proving.lab.runs[proving.lab.default_run].arms[0].base
    return content.digest(
        desk.RECIPE, source.key(arm, proving.cache), *(file.read_bytes() for file in code)
    )


def _shown(proving: Proving, key: str) -> OwnTree:
    """Use the tree, and compare it before and after."""
    user = own_tree(proving)
    before = listing(user)
    variant = variant_of(proving, user)
    _read(proving, variant)
    image = build.build(variant, proving.lab, proving.cache, proving.progress)
    start = desk.start(image, proving, seed=1)
    record = desk.boot(start, (), proving, "sources", "boot the user's tree")
    changed = differences(before, listing(user))
    shutil.rmtree(user.parent)
    return OwnTree(
        key=key,
        image=image.key,
        source=f"{image.source_package} {image.source_version}",
        release=image.release,
        files=len(before),
        size=sum(entry[1] for entry in before.values()),
        changed=tuple(changed),
        outcome=record.outcome,
        reason=record.reason,
        steps=image.build_steps,
        build_seconds=image.build_seconds,
        commit=proving.commit,
        when=now(),
    )


def _read(proving: Proving, variant: Variant) -> None:
    """Read the tree now, also when its content is in the cache from another time."""
    found, room = source.find(variant.base, proving.cache), proving.cache.room("own")
    content.publish(room, found.key, lambda to: found.fill(to, proving.cache, proving.progress))
    content.discard(room, found.key)


def own_tree(proving: Proving) -> Path:
    """A repository of the shipped base's source, dirty, with staged and untracked files.

    A minute of work and 2 GB of disk, in the cache's room for temporary files.
    """
    arm = proving.lab.runs[proving.lab.default_run].arms[0].base
    assert isinstance(arm.source, DebianSource)
    tree = source.fetch(arm, proving.cache, proving.progress).folder
    folder = proving.cache.room("tmp") / "prove-sources"
    shutil.rmtree(folder, ignore_errors=True)
    user = folder / "linux"
    folder.mkdir()
    with proving.progress.step("make a git tree of the base's source"):
        proc.run(["cp", "-a", "--", str(tree), str(user)], deadline=_GIT)
        git(user, "init", "--quiet", "--initial-branch=main")
        git(user, "-c", "core.looseCompression=0", "add", "--all", "--force")
        git(user, "commit", "--quiet", "--message=a base")
        git(user, "checkout", "--quiet", "-b", _REF)
        (user / "localversion-own").write_text("-own\n")
        git(user, "add", "--force", "localversion-own")
        git(user, "commit", "--quiet", "--message=name it")
        git(user, "checkout", "--quiet", "main")
    for name in (_STAGED, _UNTRACKED):
        (user / name).write_text("#error this is in no commit\n")
    git(user, "add", "--force", _STAGED)
    (user / _DIRTY).write_text("#error this is in no commit\n")
    return user


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=A User", "-c", "user.email=user@localhost", "-c", "gc.auto=0")
    env = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    proc.run(["git", *identity, *words], deadline=_GIT, cwd=folder, env=env)


def variant_of(proving: Proving, user: Path) -> Variant:
    """The shipped base with the user's tree as its source."""
    shipped = proving.lab.runs[proving.lab.default_run].arms[0].base
    return Variant(BASE, replace(shipped, name="own", source=GitSource(user, _REF), reference=None))


def listing(folder: Path) -> Listing:
    """All that is below the folder, git's own files too."""
    found: Listing = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files, "."):
            path = Path(place) / name
            status = path.lstat()
            digest = ""
            if path.is_symlink():
                digest = str(path.readlink())
            elif path.is_file():
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[str(path.relative_to(folder))] = (
                status.st_mode,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
                digest,
            )
    return found


def differences(before: Listing, after: Listing) -> list[str]:
    """Paths that are not as they were."""
    return sorted(
        path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    )
