# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wanted and what was built: frozen, typed values that pass between rooms.

Imports of ours only review.py.

The words are those of docs/architecture.md; there are no synonyms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from patchlab.review import Claim, Demand


class Fit(StrEnum):
    """How a patch went in: as written, at other line numbers, or with less context around it."""

    EXACT = "exact"
    OFFSET = "offset"
    REDUCED = "reduced context"


# ---------------------------------------------------------------- what is wanted


@dataclass(frozen=True, slots=True)
class DebianSource:
    """A Debian kernel source package, fetched and verified by the host's own apt."""

    package: str  # linux-source-6.12
    tarball: str  # path inside the package: usr/src/linux-source-6.12.tar.xz


@dataclass(frozen=True, slots=True)
class DebSource:
    """A Debian kernel source package that is a file: of a suite that this host's apt has not."""

    file: Path
    sha256: str
    tarball: str = ""  # path inside the package; "" is its only usr/src/linux-source-*.tar.*


@dataclass(frozen=True, slots=True)
class TarballSource:
    """A source tree as one archive: .tar, .tar.xz, .tar.gz or .tar.zst."""

    file: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class GitSource:
    """A commit of a user's repository, which is only ever read."""

    repository: Path
    ref: str


@dataclass(frozen=True, slots=True)
class DirectorySource:
    """A user's plain source tree, perhaps changed and built in. It is copied, never written to."""

    path: Path


@dataclass(frozen=True, slots=True)
class ImageSource:
    """A kernel that is built already: it is booted, and nothing else."""

    bzimage: Path
    config: Path | None = None
    vmlinux: Path | None = None


Source = DebianSource | DebSource | TarballSource | GitSource | DirectorySource | ImageSource


@dataclass(frozen=True, slots=True)
class ReferenceConfig:
    """The distribution's own .config that the slim one is held against."""

    package: str
    path: str  # inside the package, .xz
    whole: bool = False  # the base is that config, without its modules, and the fragments over it


@dataclass(frozen=True, slots=True)
class Options:
    """Wanted options that this base's kernel has under another name, or no longer has."""

    renamed: Mapping[str, str] = field(default_factory=dict)  # old -> new, without CONFIG_
    absent: Mapping[str, str] = field(default_factory=dict)  # option -> why


@dataclass(frozen=True, slots=True)
class Base:
    name: str
    title: str
    file: Path
    source: Source
    fragments: tuple[str, ...]  # names of config fragments, merged in this order
    build_steps: int  # how many steps a cold build takes, for the time left
    reference: ReferenceConfig | None = None
    options: Options = field(default_factory=Options)
    # What the source was when this Base was first asked: one command builds all of its
    # variants from one state, also when the user goes on editing. Written by source.find().
    seen: dict[str, object] = field(init=False, compare=False, repr=False, default_factory=dict)


@dataclass(frozen=True, slots=True)
class Patch:
    """One format-patch file of a revision."""

    file: Path
    subject: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Revision:
    """One posting of a series; ``str()`` gives ``series@revision``."""

    series: str
    name: str
    bases: tuple[str, ...]  # the bases it applies to
    patches: tuple[Patch, ...]
    min_context: int  # lines of context that must match; 3 asks for all of them
    about: str = ""
    origin: Path | None = None  # the user's own file or folder, which is in no series.toml

    def __str__(self) -> str:
        return f"{self.series}@{self.name}"


@dataclass(frozen=True, slots=True)
class Posting:
    who: str
    date: str
    what: str
    link: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    title: str
    feature: str  # name of guest/features/<feature>.py
    file: Path
    posted: tuple[Posting, ...]
    revisions: tuple[Revision, ...]
    ledger: tuple[Demand, ...]
    claims: tuple[Claim, ...] = ()


CMDLINE = "cmdline:"  # in the name of a variant, before a kernel option
CPU = "cpu:"  # and before a CPU model of [machine.models], for its bench boots


@dataclass(frozen=True, slots=True)
class Variant:
    """A base, an ordered stack of revisions, extra config fragments, and kernel options.

    ``name`` is canonical: ``base``, ``fuse-writable-mmap@control``, or a stack joined by `` + ``;
    then come extra fragments, each as ``config:NAME``, options, each as ``cmdline:OPTION``, and
    a CPU model, as ``cpu:NAME``.
    """

    name: str
    base: Base
    revisions: tuple[Revision, ...] = ()
    fragments: tuple[str, ...] = ()
    options: tuple[str, ...] = ()  # on the kernel's command line; the image has no part in them
    cpu: str = ""  # the CPU model of its bench boots, by name; "" is the lab's own


def options_of(name: str) -> tuple[str, ...]:
    """The kernel options in the canonical name of a variant."""
    words = name.split(" + ")
    return tuple(word.removeprefix(CMDLINE) for word in words if word.startswith(CMDLINE))


def cpu_of(name: str) -> str:
    """The CPU model in the canonical name of a variant, or ""."""
    last = name.rsplit(" + ", 1)[-1]
    return last.removeprefix(CPU) if last.startswith(CPU) else ""


def under(arm: str, model: str) -> str:
    """The name of an arm's boots under another CPU model; one that names its own keeps it."""
    return arm if cpu_of(arm) else f"{arm} + {CPU}{model}"


def bench_arms(arms: Iterable[str], models: Iterable[str]) -> tuple[str, ...]:
    """What is booted once in every block: the arms, and each again under each CPU model."""
    own = tuple(arms)
    return tuple(dict.fromkeys((*own, *(under(arm, model) for model in models for arm in own))))


@dataclass(frozen=True, slots=True)
class PmemDevice:
    """A virtio-pmem device: /dev/pmem<index> in the guest, in the order of lab.toml."""

    name: str
    size: int  # bytes
    filesystem: str
    mkfs: tuple[str, ...]
    mount: tuple[str, ...]  # mount options


@dataclass(frozen=True, slots=True)
class Machine:
    memory: int  # bytes
    cpus: int  # vCPUs of a check boot; a bench boot under icount has one
    bench_cpu: str  # QEMU -cpu of a bench boot: no ERMS, no FSRM
    check_cpu: str
    pmem: tuple[PmemDevice, ...]
    root_suite: str
    root_packages: tuple[str, ...]
    models: tuple[tuple[str, str], ...] = ()  # name and QEMU -cpu of those that an arm may name
    disk: int = 0  # bytes of a virtio-blk disk, which a run may want; 0 is none


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a run is laid out; written to the run before its first boot."""

    blocks: int
    seed: int
    parallel: int  # icount guests at once; 0 means one a core
    samples: int  # of each metric in each bench boot
    warmup: int  # more, taken first, kept and marked
    looks: tuple[int, ...] = ()  # blocks after which the run may end; the last one is ``blocks``


@dataclass(frozen=True, slots=True)
class Limits:
    """Deadlines in seconds on the host's clock. No step waits without one."""

    boot: float
    check: float
    measure: float
    poweroff: float
    build: float


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One [run.NAME] of lab.toml, resolved."""

    name: str
    title: str
    arms: tuple[Variant, ...]
    baseline: str  # canonical name of the arm that the others are compared with
    features: tuple[str, ...]
    sensitivity: tuple[str, ...] = ()  # CPU models that every arm is also booted with, by name
    disk: int = 0  # bytes of a virtio-blk disk besides the machine's devices


@dataclass(frozen=True, slots=True)
class Lab:
    file: Path
    folder: Path
    kernels: Path
    default_run: str
    base: str  # of the variants that a command names: the default run's, or another one's name
    bases: Mapping[str, Base]
    series: Mapping[str, Series]
    runs: Mapping[str, RunPlan]
    machine: Machine
    sampling: Sampling
    limits: Limits


# ---------------------------------------------------------------- what was built


@dataclass(frozen=True, slots=True)
class SourceTree:
    """An unpacked, pristine source tree in the cache. Never written to."""

    folder: Path
    key: str
    package: str  # the Debian package; "git", "tarball", "directory" of the other kinds
    version: str  # the package's version: 6.12.117-1~deb12u1; 1a2b3c4d5e6f (ref v6.13)
    sha256: str  # of the package or archive, as verified; "" of a git commit


@dataclass(frozen=True, slots=True)
class AppliedPatch:
    series: str
    revision: str
    patch: str  # file name
    sha256: str
    fit: Fit
    files: tuple[str, ...]  # every file it names, each proved to have changed


@dataclass(frozen=True, slots=True)
class Image:
    """What building a variant gives: one content-keyed folder, never rewritten."""

    key: str
    variant: str
    folder: Path
    release: str  # uname -r
    source_package: str  # as in SourceTree; "image" when nothing was built
    source_version: str
    patches: tuple[AppliedPatch, ...]
    fragments: tuple[str, ...]
    toolchain: Mapping[str, str]  # tool -> version line
    bzimage_sha256: str
    code_sha256: str  # allocated, non-note ELF sections of vmlinux: equal kernels have equal ones
    build_seconds: float
    build_steps: int

    @property
    def bzimage(self) -> Path:
        return self.folder / "bzImage"

    @property
    def vmlinux(self) -> Path:
        return self.folder / "vmlinux"

    @property
    def config(self) -> Path:
        return self.folder / "config"

    @property
    def log(self) -> Path:
        return self.folder / "build.log"


@dataclass(frozen=True, slots=True)
class Root:
    """The guest's own root filesystem: an ext4 image that the guest gets read-only."""

    key: str
    disk: Path
    suite: str
    packages: Mapping[str, str]  # name -> version
