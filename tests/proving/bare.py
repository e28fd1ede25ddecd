# SPDX-License-Identifier: GPL-2.0-or-later
"""A bare Debian machine to try the lab in: mmdebstrap's tree in a bubblewrap with all
capabilities, process and mount namespaces of its own, and the host's network.

What a machine knows of the outside (mirror, proxies, package index, certificates) is this
host's own configuration; nothing of it is written here.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from patchlab import proc
from patchlab.progress import Progress
from patchlab.sources import apt

HOME = Path.home() / ".cache" / "patchlab-machines"
PACKAGES = "git,make,python3,ca-certificates"
CACHE = "/root/.cache/patchlab"  # the lab's, inside
BUNDLE = "/mnt/patchlab.bundle"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NET = ("/etc/resolv.conf", "/etc/hosts")
_CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
# bwrap covers parts of /proc, and then no user namespace below may mount its own (the kernel
# asks for one that is fully visible); and it mounts all with nosuid and nodev.
_OPEN = 'mount -t proc proc /proc && mount -o remount,bind,suid,dev / && exec sh -c "$1"'
_TARGET = "$(CREATED_BY)\t$(LABEL)\t$(REPO_URI)"
# Of apt's Acquire group, what says how this host reaches its mirror.
_ACQUIRE = re.compile(r"^Acquire::(?:Check-|http|https|Retries|Force)[^ ]* \"[^\"]+\";$")


@dataclass(frozen=True, slots=True)
class Bare:
    """A bare machine: its root, its lab's cache, and how to run a command in it."""

    suite: str
    root: Path
    cache: Path
    bundle: Path  # the repository, as git bundle makes it

    def run(self, command: str, log: Path, deadline: float) -> proc.Completed:
        """A shell command in the home of root; any exit code is a result."""
        argv = [*self._argv(), "--", "sh", "-c", _OPEN, "sh", command]
        return proc.run(argv, deadline=deadline, log=log, ok=range(256))

    def _argv(self) -> list[str]:
        index = package_index()
        hosts = [Path(name) for name in _NET]
        shown = [*hosts, *_local_files(index)]
        return [
            *("bwrap", "--die-with-parent", "--bind", str(self.root), "/"),
            *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", "bare"),
            *("--cap-add", "ALL", "--proc", "/proc", "--dev-bind", "/dev", "/dev"),
            *("--ro-bind", "/sys", "/sys", "--bind", str(self.cache), CACHE),
            *("--ro-bind", str(self.bundle), BUNDLE),
            *(w for path in shown if path.exists() for w in ("--ro-bind", str(path), str(path))),
            *("--clearenv", "--setenv", "PATH", _PATH, "--setenv", "HOME", "/root"),
            *(word for pair in index.items() for word in ("--setenv", *pair)),
            *("--chdir", "/root"),
        ]


@contextlib.contextmanager
def machine(suite: str, bundle: Path, cache: Path, progress: Progress) -> Iterator[Bare]:
    """A fresh root of ``suite``; gone afterwards, its cache is not. Needs root.

    The tree that mmdebstrap made is kept as a tarball in HOME.
    """
    tarball = _tarball(suite, progress)
    root = HOME / f"{suite}.root"
    _remove(root)
    root.mkdir()
    try:
        unpack = ["tar", "-xf", str(tarball), "-C", str(root), "--numeric-owner"]
        proc.run(unpack, deadline=600)
        _apt_sources(suite, root)
        cache.mkdir(parents=True, exist_ok=True)
        yield Bare(suite, root, cache, bundle)
    finally:
        _remove(root)


def package_index() -> dict[str, str]:
    """The environment that makes pip in another place use this host's index."""
    names = (*_CERTIFICATES, *_PROXIES)
    found = {name: os.environ[name] for name in names if name in os.environ}
    listing = proc.run(["python3", "-m", "pip", "config", "list"], deadline=60, ok=range(256))
    return found | pip_variables(listing.output)


def pip_variables(listing: str) -> dict[str, str]:
    """``pip config list`` as environment variables; a later line beats an earlier one."""
    found: dict[str, str] = {}
    for line in sorted(listing.splitlines(), key=lambda text: text.startswith(":env:")):
        key, equals, value = line.partition("=")
        if equals and key.startswith(("global.", "install.", ":env:.")):
            words = str(ast.literal_eval(value)).split()
            found[f"PIP_{key.rpartition('.')[2].upper().replace('-', '_')}"] = " ".join(words)
    return found


def _local_files(variables: Mapping[str, str]) -> list[Path]:
    """What of this host's files the variables name; a folder of an index with all in it."""
    words = [word for value in variables.values() for word in value.split()]
    paths = [Path(word.removeprefix("file://")) for word in words if re.match(r"(file://)?/", word)]
    # The files of an index are beside its pages.
    return [path.parent if path.name == "simple" else path for path in dict.fromkeys(paths)]


def _tarball(suite: str, progress: Progress) -> Path:
    tarball = HOME / f"{suite}.tar"
    if tarball.is_file():
        return tarball
    HOME.mkdir(parents=True, exist_ok=True)
    half = HOME / f"{suite}.new.tar"
    recommends = '--aptopt=APT::Install-Recommends "false"'
    argv = ["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", recommends]
    with progress.step(f"bare Debian {suite}"):
        proc.run([*argv, suite, str(half), apt.mirror().uri], deadline=3600)
    half.replace(tarball)
    return tarball


def _apt_sources(suite: str, root: Path) -> None:
    """The host's archives and its way to them, for another suite."""
    lines = [f"deb {apt.mirror().uri} {suite} main"]
    listing = proc.run(["apt-get", "indextargets", "--format", _TARGET], deadline=60)
    for row in listing.output.splitlines():
        if row.startswith("Packages\tDebian-Security\t"):
            lines.append(f"deb {row.split()[-1].rstrip('/')} {suite}-security main")
    (root / "etc/apt/sources.list").write_text("\n".join(dict.fromkeys(lines)) + "\n")
    dump = proc.run(["apt-config", "dump", "Acquire"], deadline=60).output.splitlines()
    way = [line for line in dump if _ACQUIRE.fullmatch(line)]
    (root / "etc/apt/apt.conf.d/00host").write_text("\n".join(way) + "\n")


def _remove(root: Path) -> None:
    if root.exists():
        shutil.rmtree(root)
