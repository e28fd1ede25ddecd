# SPDX-License-Identifier: GPL-2.0-or-later
"""What this host is and what it lacks. Standard library only: bootstrap.py runs it before .venv."""

from __future__ import annotations

import contextlib
import grp
import importlib.util
import os
import platform
import pwd
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from patchlab import proc, sandbox
from patchlab.errors import LabError

State = Literal["ok", "warning", "missing", "unproved"]

GIB = 1 << 30
COLD_CACHE = 12 * GIB  # source, built trees, images and root of the shipped lab.toml
_ENOUGH_MEMORY = 4 * GIB  # two guests of 1 GiB, a linker, the lab
_IDS = 65536  # user and group numbers that mmdebstrap needs of an ordinary user
_FIRST_ID = 100000  # useradd's first
_ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    name: str
    state: State
    finding: str
    remedy: str = ""  # what to do or to type; "" when nothing need be done


class KvmProof(Protocol):
    """What kvm.Proof is to this room, which may not import that one."""

    @property
    def state(self) -> str: ...  # absent, unproved, refused or proved

    @property
    def reason(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Tool:
    """A program, or a file that another package's programs need."""

    name: str
    package: str  # of Debian
    use: str
    files: tuple[str, ...] = ()  # below /; any of them will do. Without them ``name`` is a program
    rootless: bool = False  # only an ordinary user needs it

    @property
    def needed(self) -> bool:
        return not (self.rootless and os.geteuid() == 0)


TOOLS = (
    Tool("qemu-system-x86_64", "qemu-system-x86", "boots the guests"),
    Tool("bwrap", "bubblewrap", "the box around make and QEMU"),
    Tool("mmdebstrap", "mmdebstrap", "makes the guest's root"),
    Tool("mke2fs", "e2fsprogs", "makes the guest's root"),
    Tool("newuidmap", "uidmap", "lets mmdebstrap work without root", rootless=True),
    Tool("gcc", "gcc", "compiles the kernel"),
    Tool("make", "make", "builds the kernel"),
    Tool("flex", "flex", "builds the kernel"),
    Tool("bison", "bison", "builds the kernel"),
    Tool("bc", "bc", "builds the kernel"),
    Tool("stdio.h", "libc6-dev", "builds the kernel's host tools", ("usr/include/stdio.h",)),
    Tool("libelf.h", "libelf-dev", "objtool", ("usr/include/libelf.h", "usr/include/gelf.h")),
    Tool("openssl/ssl.h", "libssl-dev", "sign-file", ("usr/include/openssl/ssl.h",)),
    Tool("perl", "perl", "builds the kernel; checkpatch and kernel-doc for the review ledger"),
    Tool("git", "git", "applies the patches"),
    Tool("tar", "tar", "unpacks sources"),
    Tool("xz", "xz-utils", "unpacks sources"),
    Tool("zstd", "zstd", "unpacks packages"),
    Tool("lz4", "lz4", "compresses the kernel image"),
    Tool("dpkg-deb", "dpkg", "unpacks packages"),
    Tool("apt-get", "apt", "fetches and verifies the kernel's source"),
    Tool("apt-cache", "apt", "finds the kernel's source"),
    Tool("setpriv", "util-linux", "ends every child when the lab ends"),
    Tool("file", "file", "virtme-ng asks it what a kernel image is"),
    Tool(
        "Debian archive keys",
        "debian-archive-keyring",
        "verifies the guest's root",
        ("usr/share/keyrings/debian-archive-keyring.gpg",),
    ),
    Tool("gdb", "gdb", "runner.py gdb"),
)


def missing_packages(path: str | None = None, root: Path = _ROOT) -> tuple[str, ...]:
    """Debian packages that the lab cannot do without and this host lacks, in order of need.

    ``path`` replaces $PATH, ``root`` the file system's root.
    """
    packages = [t.package for t in TOOLS if t.needed and not _where(t, path, root)]
    if not _has_venv():
        packages.append("python3-venv")
    return tuple(dict.fromkeys(packages))


def install_line(packages: tuple[str, ...]) -> str:
    """What to type to get them."""
    return f"sudo apt-get install -y --no-install-recommends {' '.join(packages)}"


def _where(tool: Tool, path: str | None, root: Path) -> str:
    if tool.files:
        return next((f"/{name}" for name in tool.files if (root / name).exists()), "")
    return shutil.which(tool.name, path=path or proc.environment()["PATH"]) or ""


def _has_venv() -> bool:
    # Debian splits ensurepip off into python3-venv; without it `python3 -m venv` fails.
    return importlib.util.find_spec("ensurepip") is not None


# ---------------------------------------------------------------- facts


@dataclass(frozen=True, slots=True)
class Cores:
    allowed: int  # by sched_getaffinity
    online: int
    quota: float | None  # CPUs, by cgroup

    @property
    def usable(self) -> int:
        """Whole cores that can be kept busy: the smaller of affinity and quota, at least one."""
        return max(1, self.allowed if self.quota is None else min(self.allowed, int(self.quota)))

    def __str__(self) -> str:
        quota = "" if self.quota is None else f", quota {self.quota:g}"
        return f"{self.usable} usable of {self.online}{quota}"


def facts(root: Path = _ROOT) -> Mapping[str, str]:
    """cpu, cores, memory, kernel, distribution and python of this host, for people to read."""
    return {
        "cpu": _field(root / "proc/cpuinfo", "model name") or platform.machine(),
        "cores": str(cores(root)),
        "memory": f"{memory(root) / GIB:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "distribution": _distribution(root),
        "python": platform.python_version(),
    }


def cores(root: Path = _ROOT) -> Cores:
    quotas = [quota for folder in _cgroups(root, "cpu") if (quota := _quota(folder)) is not None]
    return Cores(len(os.sched_getaffinity(0)), os.cpu_count() or 1, min(quotas, default=None))


def memory(root: Path = _ROOT) -> int:
    """Bytes: the smaller of the host's memory and the cgroup's limit."""
    total = _field(root / "proc/meminfo", "MemTotal").split()
    limits = [int(total[0]) << 10] if total else []
    for folder in _cgroups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limits += [int(text)] if (text := _read(folder / name)).isdigit() else []
    return min(limits, default=0)


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """This process's cgroup and all above it, version 2 or 1: the tightest limit holds."""
    top = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        mounted = top / names if names else top
        group = mounted / path.lstrip("/")
        yield from (f for f in (group, *group.parents) if f.is_relative_to(mounted))


def _quota(folder: Path) -> float | None:
    """CPUs. cpu.max is "max 100000" or "quota period", both in microseconds."""
    pair = _read(folder / "cpu.max").split() or [
        _read(folder / "cpu.cfs_quota_us"),
        _read(folder / "cpu.cfs_period_us"),
    ]
    if len(pair) == 2 and pair[0].isdigit() and pair[1].isdigit():
        return int(pair[0]) / int(pair[1])
    return None


def _distribution(root: Path) -> str:
    for line in _read(root / "etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return platform.system()


def _field(file: Path, name: str) -> str:
    for line in _read(file).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


# ---------------------------------------------------------------- findings


def diagnose(
    cache: Path,
    needed_bytes: int = COLD_CACHE,
    *,
    kvm: KvmProof | None = None,
    path: str | None = None,
    root: Path = _ROOT,
) -> tuple[Diagnosis, ...]:
    """Everything that a run needs of this host, each with its remedy; takes under a second.

    ``cache`` need not exist. ``kvm`` is what is remembered of booting under it, if anything.
    """
    return (
        *(_tool(tool, path, root) for tool in TOOLS),
        _venv(),
        _disk(cache, needed_bytes),
        _cores(cores(root)),
        _memory(memory(root)),
        _kvm(kvm, root),
        _clock(kvm),
        _namespaces(path, root),
        subordinate_ids(root),
    )


def _tool(tool: Tool, path: str | None, root: Path) -> Diagnosis:
    if where := _where(tool, path, root):
        return Diagnosis(tool.name, "ok", where)
    if not tool.needed:
        return Diagnosis(tool.name, "ok", "not needed as root")
    return Diagnosis(tool.name, "missing", f"not found ({tool.use})", install_line((tool.package,)))


def _venv() -> Diagnosis:
    if _has_venv():
        return Diagnosis("python venv", "ok", f"Python {platform.python_version()}")
    return Diagnosis("python venv", "missing", "no ensurepip", install_line(("python3-venv",)))


def _disk(cache: Path, needed: int) -> Diagnosis:
    folder = next(f for f in (cache, *cache.absolute().parents) if f.exists())
    free = shutil.disk_usage(folder).free
    finding = f"{free / GIB:.1f} GiB free in {cache}; a cold run takes {needed / GIB:.0f} GiB"
    elsewhere = "or put the cache elsewhere: export XDG_CACHE_HOME=…"
    if not os.access(folder, os.W_OK):
        return Diagnosis("disk", "missing", f"{folder} is not writable", f"make it so, {elsewhere}")
    if free >= needed:
        return Diagnosis("disk", "ok", finding)
    # What is there already need not be made again, so a full disk may do on a warm cache.
    state: State = "warning" if cache.exists() and any(cache.iterdir()) else "missing"
    short = (needed - free) / GIB
    return Diagnosis("disk", state, finding, f"free {short:.1f} GiB (runner.py gc), {elsewhere}")


def _cores(found: Cores) -> Diagnosis:
    if found.usable >= 2:
        return Diagnosis("cores", "ok", str(found))
    return Diagnosis(
        "cores", "warning", str(found), "expect twice the time: guests run one after another"
    )


def _memory(found: int) -> Diagnosis:
    finding = f"{found / GIB:.1f} GiB"
    if found >= _ENOUGH_MEMORY:
        return Diagnosis("memory", "ok", finding)
    remedy = "set parallel = 1 in [sampling], and less memory in [machine], of lab.toml"
    return Diagnosis("memory", "warning", finding, remedy)


def _kvm(proof: KvmProof | None, root: Path) -> Diagnosis:
    device = root / "dev/kvm"
    state = proof.state if proof else "unproved"
    if not device.exists():
        return Diagnosis("KVM", "warning", "no /dev/kvm: TCG will be used", _KVM_HOST)
    if not os.access(device, os.R_OK | os.W_OK):
        finding = "/dev/kvm may not be opened: TCG will be used"
        return Diagnosis("KVM", "warning", finding, let_in(device))
    if proof and state == "proved":
        return Diagnosis("KVM", "ok", f"proved: {proof.reason}")
    if proof and state == "refused":
        finding = f"refused: {proof.reason}: TCG will be used"
        return Diagnosis("KVM", "warning", finding, _KVM_HOST)
    finding = "/dev/kvm opens, which proves nothing"
    return Diagnosis("KVM", "unproved", finding, "the first run boots its first image under it")


def let_in(device: Path) -> str:
    """How a user who may not open /dev/kvm gets to."""
    status = device.stat()
    if status.st_gid and status.st_mode & 0o060 == 0o060:
        with contextlib.suppress(KeyError):
            return f"sudo adduser $USER {grp.getgrgid(status.st_gid).gr_name}, and log in again"
    return "sudo setfacl -m u:$USER:rw /dev/kvm (until the next start of this host)"


_KVM_HOST = "none needed; for times in nanoseconds use a host whose KVM boots guests"


def _clock(proof: KvmProof | None) -> Diagnosis:
    if proof and proof.state == "proved":
        return Diagnosis("clock", "ok", "wall: nanoseconds under KVM")
    return Diagnosis("clock", "ok", "icount: guest instructions under TCG")


def _namespaces(path: str | None, root: Path) -> Diagnosis:
    """Tries the very box that builds run in: settings alone do not tell (containers, LSMs)."""
    name = "user namespaces"
    if shutil.which("bwrap", path=path) is None:
        return Diagnosis(
            name, "unproved", "no bwrap to try them with", install_line(("bubblewrap",))
        )
    box = sandbox.bubblewrap(["true"], cwd=Path("/tmp"))
    try:
        proc.run(box, deadline=20)
    except LabError as error:
        said = str(error).splitlines()[-1].strip()
        return Diagnosis(name, "missing", f"the box does not start: {said}", _unlock(root))
    return Diagnosis(name, "ok", "the box that builds run in starts")


def subordinate_ids(root: Path, user: str | None = None) -> Diagnosis:
    """newuidmap(1) gives a user only what subuid(5) and subgid(5) name; mmdebstrap asks 65536.

    ``user`` is the one that is asked about, by default the one that runs the lab.
    """
    name = "subordinate ids"
    if user is None and os.geteuid() == 0:
        return Diagnosis(name, "ok", "not needed as root")
    me = user or pwd.getpwuid(os.geteuid()).pw_name
    lacking = [file for file in ("subuid", "subgid") if _granted(root / "etc" / file, me) < _IDS]
    if not lacking:
        return Diagnosis(name, "ok", f"{_IDS} for {me}")
    files = " and ".join(f"/etc/{file}" for file in lacking)
    ids = f"{_FIRST_ID}-{_FIRST_ID + _IDS - 1}"
    remedy = f"sudo usermod --add-subuids {ids} --add-subgids {ids} {me}"
    return Diagnosis(name, "missing", f"{files} gives {me} none: no guest root is made", remedy)


def _granted(file: Path, user: str) -> int:
    """The longest range that the file gives to a user, by name or number."""
    names = {user}
    with contextlib.suppress(KeyError):
        names.add(str(pwd.getpwnam(user).pw_uid))
    rows = [line.split(":") for line in _read(file).splitlines()]
    counts = [int(r[2]) for r in rows if len(r) == 3 and r[0] in names and r[2].isdigit()]
    return max(counts, default=0)


# What may forbid them, the value that does, and the value that allows them.
_LOCKS = (
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ("user/max_user_namespaces", "0", "10000"),
)


def _unlock(root: Path) -> str:
    for name, forbids, allows in _LOCKS:
        if _read(root / "proc/sys" / name) == forbids:
            return f"sudo sysctl -w {name.replace('/', '.')}={allows}"
    return "in a container, allow it to unshare namespaces and to mount /proc"
