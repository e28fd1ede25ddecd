# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's own root filesystem: made once with mmdebstrap, given to guests read-only.

It is an ext4 image on a virtio disk. Over 9p every file that Python looks up is a round
trip, and under TCG the agent answered after 45 s instead of 15.

An ordinary user's mmdebstrap works in a user namespace and would leave a tree of other
people's files (subuid(5)), which its caller can neither change nor remove. So it gives a
tarball, which the caller unpacks as his own; on the disk all of it belongs to root.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from patchlab import proc, scratch
from patchlab.building import whole
from patchlab.errors import LostInstrument
from patchlab.model import Machine, Root
from patchlab.paths import Cache
from patchlab.progress import Progress, Step
from patchlab.sources import apt
from patchlab.store import content

# Part of the key: a changed recipe makes a new root.
_RECIPE = "1"
_MANIFEST = "root.json"
_DEADLINE = 1800.0
_LINES = 60  # that mmdebstrap prints, for the time left
_DISK = "root.ext4"
# A guest has no use for boot-time clean-up, which takes two seconds under TCG.
_REMOVED = ("usr/bin/systemd-tmpfiles",)
_MOUNT_POINTS = ("run/lab", *(f"mnt/pmem{n}" for n in range(8)))
_ROOM = 1.25  # file system overhead: inodes, bitmaps, half-used blocks
# Nobody reads manuals in there.
_EXCLUDED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")


class _Manifest(msgspec.Struct):
    suite: str
    packages: dict[str, str]


def key(machine: Machine) -> str:
    return content.digest(_RECIPE, machine.root_suite, *sorted(machine.root_packages))


def make(machine: Machine, cache: Cache, progress: Progress) -> Root:
    """The root that lab.toml asks for, from the cache or made now (about a minute).

    The mirror is the one in the host's own apt configuration. Raises LostInstrument when
    mmdebstrap fails, MissingTool when it is not there.
    """
    name = key(machine)
    whole.keep(cache.room("roots"), name, whole.root_damage, progress)
    folder = content.publish(
        cache.room("roots"), name, lambda to: _bootstrap(machine, to, cache, name, progress)
    )
    manifest = msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=_Manifest)
    return Root(name, folder / _DISK, manifest.suite, manifest.packages)


def _bootstrap(machine: Machine, to: Path, cache: Cache, name: str, progress: Progress) -> None:
    log = cache.room("logs") / f"root-{name}.log"
    log.unlink(missing_ok=True)
    tree = to / "tree"
    with progress.step(f"guest root: Debian {machine.root_suite}") as step:
        try:
            _debootstrap(machine, tree, log, step)
            packages = _packages(tree)
            _disk(tree, to / _DISK, log)
        except proc.CommandFailed as error:
            raise LostInstrument(
                f"the guest's root could not be made; log: {log}\n{error.tail}",
                hint="is the Debian mirror of this host's apt reachable, and does it have "
                f"the suite {machine.root_suite!r}?",
            ) from error
    manifest = _Manifest(machine.root_suite, packages)
    (to / _MANIFEST).write_bytes(msgspec.json.encode(manifest))
    shutil.rmtree(tree)


def _debootstrap(machine: Machine, tree: Path, log: Path, step: Step) -> None:
    lines = 0

    def line(_: str) -> None:
        nonlocal lines
        lines += 1
        step.advance(min(lines, _LINES), _LINES + 1)

    made = tree if _is_root() else tree.with_suffix(".tar")
    # Not in $TMPDIR itself, where nobody would know what a killed mmdebstrap left.
    with scratch.folder("drop") as temporary:
        temporary.chmod(0o1777)  # it works as other users as well: apt's, subordinate ones
        env = {"TMPDIR": str(temporary)}
        proc.run(_argv(machine, made), deadline=_DEADLINE, env=env, log=log, line=line)
    if made != tree:
        _unpack(made, tree, log)
    for name in _REMOVED:
        (tree / name).unlink(missing_ok=True)
    for name in _MOUNT_POINTS:
        (tree / name).mkdir(parents=True, exist_ok=True)


def _unpack(tarball: Path, tree: Path, log: Path) -> None:
    """As an ordinary user, who may make no device nodes; the guest mounts devtmpfs there."""
    tree.mkdir()
    options = ["--no-same-owner", "--preserve-permissions", "--exclude=./dev/*"]
    proc.run(["tar", "-xf", str(tarball), "-C", str(tree), *options], deadline=300, log=log)
    tarball.unlink()


def _packages(tree: Path) -> dict[str, str]:
    query = ["dpkg-query", f"--admindir={tree}/var/lib/dpkg", "--show"]
    listing = proc.run([*query, "--showformat=${Package} ${Version}\\n"], deadline=60)
    return dict(row.split(" ", 1) for row in listing.output.splitlines() if " " in row)


def _disk(tree: Path, disk: Path, log: Path) -> None:
    """An ext4 image of ``tree``, just large enough; nobody writes to it, so no journal."""
    used = proc.run(["du", "--summarize", "--block-size=1M", str(tree)], deadline=60)
    megabytes = int(int(used.output.split()[0]) * _ROOM) + 32
    options = ["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", str(tree)]
    # In this namespace the caller's own files are root's.
    become_root = ["bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--bind", "/", "/", "--"]
    argv = ["mke2fs", *options, str(disk), f"{megabytes}M"]
    proc.run(argv if _is_root() else [*become_root, *argv], deadline=300, log=log)


def _is_root() -> bool:
    return os.geteuid() == 0


def _argv(machine: Machine, to: Path) -> list[str]:
    # As root it mounts /proc and the like for all to see, and a killed one leaves them there.
    alone = ["unshare", "--mount", "--"] if _is_root() else []
    return [
        *alone,
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join(machine.root_packages)}",
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED),
        machine.root_suite,
        str(to),
        apt.mirror().uri,
    ]
