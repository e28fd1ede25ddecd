# SPDX-License-Identifier: GPL-2.0-or-later
"""The box that untrusted code runs in: bubblewrap, as root and as an ordinary user.

Pure: it builds an argv for patchlab.proc. Inside there is ``/usr``, the few files of
``/etc`` that a tool chain reads, an empty ``/tmp``, and what the caller binds; no network
unless asked, no capabilities, no terminal, no environment of the caller's. Everything in
it dies with bwrap, and bwrap dies with the lab.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

# The path inside the box holds no user's own programs, so the same host gives the same tools.
PATH = "/usr/sbin:/usr/bin"
# Links to the chosen awk, cc and yacc, and the dynamic linker's own files.
_ETC = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d")
_MERGED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")


def bubblewrap(
    argv: Sequence[str],
    *,
    cwd: Path,
    read: Sequence[Path] = (),
    write: Mapping[Path, Path] | None = None,
    devices: Sequence[Path] = (),
    env: Mapping[str, str] | None = None,
    network: bool = False,
) -> list[str]:
    """The argv that runs ``argv`` in the box.

    ``read`` is bound read-only at its own path. ``write`` maps a path inside to the path
    on the host that it shows, writable. ``devices`` are device nodes, left out where the
    host has none. ``env`` is the whole environment, but for PATH, HOME and the locale,
    which it may override. ``network`` shares the host's network.
    """
    variables = {"PATH": PATH, "HOME": "/tmp", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    return [
        "bwrap",
        *_isolation(network),
        *_system(),
        *(word for path in read for word in ("--ro-bind", str(path), str(path))),
        *(
            word
            for inside, host in (write or {}).items()
            for word in ("--bind", str(host), str(inside))
        ),
        *(word for path in devices for word in ("--dev-bind-try", str(path), str(path))),
        *_environment(variables | dict(env or {})),
        "--chdir",
        str(cwd),
        "--",
        *argv,
    ]


def _isolation(network: bool) -> list[str]:
    return [
        "--unshare-all",
        *(["--share-net"] if network else []),
        "--die-with-parent",
        "--new-session",
        "--cap-drop",
        "ALL",
        "--hostname",
        "patchlab",
    ]


def _system() -> list[str]:
    words = ["--ro-bind", "/usr", "/usr"]
    for name in _MERGED:
        words += _merged(Path(name))
    for name in _ETC:
        words += ["--ro-bind-try", name, name]
    return [*words, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]


def _merged(path: Path) -> list[str]:
    """``/bin`` and its like: links into ``/usr`` on a merged system, else folders."""
    if path.is_symlink():
        return ["--symlink", str(path.readlink()), str(path)]
    return ["--ro-bind", str(path), str(path)] if path.is_dir() else []


def _environment(variables: Mapping[str, str]) -> list[str]:
    words = ["--clearenv"]
    for name, value in sorted(variables.items()):
        words += ["--setenv", name, value]
    return words
