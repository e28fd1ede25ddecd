# SPDX-License-Identifier: GPL-2.0-or-later
"""A tree that looks like a kernel's source, as a folder, an archive and a repository."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from patchlab import proc
from patchlab.model import Base, Source

FILES = {
    "Makefile": "# SPDX\nVERSION = 6\nPATCHLEVEL = 99\nSUBLEVEL = 0\n",
    "Kbuild": "obj-y += fs/\n",
    "Kconfig": "config X\n\tbool\n",
    "fs/file.c": "int x;\n",
    "fs/a name with spaces.c": "int y;\n",
    "scripts/run.sh": "#!/bin/sh\n",
    ".gitignore": "*.o\n.*\n!.gitignore\n/vmlinux\n",
}
Listing = dict[str, tuple[int, int, int, int, str]]


def make(folder: Path, files: dict[str, str] | None = None) -> Path:
    for name, text in (FILES | (files or {})).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "scripts/run.sh").chmod(0o755)
    (folder / "link").symlink_to("fs/file.c")
    return folder


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@localhost", "-c", "core.pager=cat")
    env = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    return proc.run(["git", *identity, *words], deadline=30, cwd=folder, env=env).output


def repository(folder: Path, files: dict[str, str] | None = None) -> Path:
    make(folder, files)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=first")
    git(folder, "tag", "v6.99")
    return folder


def base(folder: Path, source: Source, toml: str = "") -> Base:
    """A base whose file says ``toml``: errors name its lines."""
    file = folder / "mine.toml"
    file.write_text(toml)
    return Base("mine", "Mine", file, source, (), 1)


def listing(folder: Path) -> Listing:
    """All that there is below a folder: path -> mode, inode, mtime, ctime, SHA-256."""
    found: Listing = {}
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        data = b""
        if path.is_symlink():
            data = os.fsencode(path.readlink())
        elif path.is_file():
            data = path.read_bytes()
        found[str(path.relative_to(folder))] = (
            status.st_mode,
            status.st_ino,
            status.st_mtime_ns,
            status.st_ctime_ns,
            hashlib.sha256(data).hexdigest(),
        )
    return found


def content(folder: Path) -> dict[str, str]:
    """Path -> text or link, of every file below a folder."""
    return {
        str(path.relative_to(folder)): f"-> {path.readlink()}"
        if path.is_symlink()
        else path.read_text()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }
