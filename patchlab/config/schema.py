# SPDX-License-Identifier: GPL-2.0-or-later
"""What lab.toml, kernels/*.toml and patches/*/series.toml may say, and what holds if they do not.

docs/lab-toml.md explains every field; tests/test_docs.py holds the two together.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

Count = Annotated[int, Meta(ge=1, description="a whole number of 1 or more")]
Natural = Annotated[
    int, Meta(ge=0, le=2**32 - 1, description="a whole number of 0 or more, below 2^32")
]
Context = Annotated[int, Meta(ge=1, le=3, description="a whole number from 1 to 3")]
Seconds = Annotated[
    float, Meta(gt=0, le=86400, description="seconds: a number above 0, up to 86400 (a day)")
]
Size = Annotated[
    str,
    Meta(
        pattern=r"^[1-9][0-9]{0,5}[KMGT]\Z",
        description='a size as a string: a number and K, M, G or T, as in "512M"',
    ),
]
Word = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*\Z", description="a word of letters, digits and '_'"),
]
Date = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?\Z",
        description='a date as a string: "2008", "2008-04" or "2008-04-30"',
    ),
]
Text = Annotated[str, Meta(min_length=1, description="a string that is not empty")]
Texts = Annotated[
    tuple[Text, ...], Meta(min_length=1, description="an array of one string or more")
]

Sha256 = Annotated[
    str, Meta(pattern=r"^[0-9a-f]{64}\Z", description="a SHA-256: 64 lower-case hex digits")
]
Ref = Annotated[
    str, Meta(pattern=r"^[^-\s][^\s]*\Z", description="a commit, branch or tag, without spaces")
]
Option = Annotated[
    str, Meta(pattern=r"^(CONFIG_)?[A-Za-z0-9_]+\Z", description="the name of an option")
]
RuleText = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z-]*(:[A-Za-z0-9_]+)?\Z",
        description="the name of a static rule, or name:argument",
    ),
]
Answers = Annotated[
    str | dict[str, Text],
    Meta(description="a string, or a table of revision = string"),
]


class Table(Struct, frozen=True, forbid_unknown_fields=True):
    """Every table of every file: frozen, and an unknown key is an error."""


# ---------------------------------------------------------------- lab.toml


class RootTable(Table, frozen=True):
    """``[machine.root]``: the guest's own Debian root."""

    suite: Text = "trixie"
    packages: Texts = (
        "python3",
        "openssh-server",
        "xfsprogs",
        "e2fsprogs",
        "util-linux",
        "mount",
        "iproute2",
        "kmod",
        "procps",
    )


class PmemTable(Table, frozen=True):
    """``[[machine.pmem]]``: one virtio-pmem device."""

    name: Word
    size: Size = "512M"
    filesystem: Literal["xfs", "ext4"] = "xfs"
    mkfs: tuple[Text, ...] = ()
    mount: tuple[Text, ...] = ("dax=always",)


class MachineTable(Table, frozen=True):
    """``[machine]``: how a guest is started."""

    memory: Size = "1G"
    cpus: Count = 2
    bench_cpu: Text = "max,-erms,-fsrm"
    check_cpu: Text = "max"
    models: dict[str, Text] = field(default_factory=dict)
    root: RootTable = field(default_factory=RootTable)
    pmem: tuple[PmemTable, ...] = ()


class SamplingTable(Table, frozen=True):
    """``[sampling]``: how a run is laid out."""

    blocks: Count = 5
    seed: Natural = 2008
    parallel: Natural = 0
    samples: Count = 12
    warmup: Natural = 2
    looks: tuple[Count, ...] = ()


class LimitsTable(Table, frozen=True):
    """``[limits]``: deadlines in seconds on the host's clock."""

    boot: Seconds = 180.0
    check: Seconds = 60.0
    measure: Seconds = 300.0
    poweroff: Seconds = 30.0
    build: Seconds = 3600.0


class RunTable(Table, frozen=True):
    """``[run.NAME]``: which arms are compared, and by which features."""

    title: Text
    base: Text
    arms: Texts
    features: Texts
    baseline: Text = "base"
    fragments: tuple[Text, ...] = ()
    sensitivity: tuple[Text, ...] = ()
    disk: Size | None = None


class LabFile(Table, frozen=True):
    """lab.toml."""

    default: Text
    kernels: Text = "kernels"
    patches: Texts = ("patches",)
    machine: MachineTable = field(default_factory=MachineTable)
    sampling: SamplingTable = field(default_factory=SamplingTable)
    limits: LimitsTable = field(default_factory=LimitsTable)
    run: dict[str, RunTable] = field(default_factory=dict)


# ---------------------------------------------------------------- kernels/<base>.toml


class DebianTable(Table, frozen=True, tag_field="kind", tag="debian"):
    """``[source]``: a Debian source package, fetched and verified by the host's apt."""

    package: Text
    tarball: Text


class DebTable(Table, frozen=True, tag_field="kind", tag="deb"):
    """``[source]``: a Debian source package that is a file."""

    file: Text
    sha256: Sha256
    tarball: str = ""


class TarballTable(Table, frozen=True, tag_field="kind", tag="tarball"):
    """``[source]``: a source tree as one archive."""

    file: Text
    sha256: Sha256


class GitTable(Table, frozen=True, tag_field="kind", tag="git"):
    """``[source]``: a commit of a repository, which is only ever read."""

    repository: Text
    ref: Ref


class DirectoryTable(Table, frozen=True, tag_field="kind", tag="directory"):
    """``[source]``: a plain source tree, which is copied and never written to."""

    path: Text


class ImageTable(Table, frozen=True, tag_field="kind", tag="image"):
    """``[source]``: a kernel that is built already and only booted."""

    bzimage: Text
    config: Text | None = None
    vmlinux: Text | None = None


SourceTable = DebianTable | DebTable | TarballTable | GitTable | DirectoryTable | ImageTable


class ReferenceTable(Table, frozen=True):
    """``[reference]``: the distribution's own .config that this base's is held against.

    With ``whole`` the base is that config, but for its modules: they are left out.
    """

    package: Text
    path: Text
    whole: bool = False


class OptionsTable(Table, frozen=True):
    """``[options]``: wanted options that this kernel calls otherwise, or no longer has."""

    renamed: dict[str, Option] = field(default_factory=dict)
    absent: dict[str, Text] = field(default_factory=dict)


class BaseFile(Table, frozen=True):
    """kernels/<base>.toml."""

    title: Text
    source: SourceTable
    fragments: tuple[Text, ...] = ()
    build_steps: Count = 3000
    reference: ReferenceTable | None = None
    options: OptionsTable = field(default_factory=OptionsTable)


# ---------------------------------------------------------------- patches/<series>/series.toml


class PostedTable(Table, frozen=True):
    """``[[posted]]``: one posting of the series, or of what it became."""

    who: Text
    date: Date
    what: Text
    link: str = ""


class RevisionTable(Table, frozen=True):
    """``[revision.NAME]``: one revision that the lab has patches of."""

    bases: Texts
    min_context: Context = 3
    about: str = ""


class LedgerTable(Table, frozen=True):
    """``[[ledger]]``: one demand of a reviewer."""

    id: Text
    who: Text
    date: Date
    demand: Text
    checks: tuple[Word, ...] = ()
    rules: tuple[RuleText, ...] = ()
    answered: Answers = ""


class ClaimTable(Table, frozen=True):
    """``[[claim]]``: a gain that was claimed for the series."""

    id: Text
    who: Text
    date: Date
    claim: Text
    metric: Text
    against: Text = "base"
    clock: Literal["wall", "icount"] = "wall"
    setup: str = ""
    link: str = ""


class SeriesFile(Table, frozen=True):
    """patches/<series>/series.toml."""

    title: Text
    feature: Text
    posted: tuple[PostedTable, ...] = ()
    revision: dict[str, RevisionTable] = field(default_factory=dict)
    ledger: tuple[LedgerTable, ...] = ()
    claim: tuple[ClaimTable, ...] = ()
