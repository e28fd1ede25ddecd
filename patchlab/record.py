# SPDX-License-Identifier: GPL-2.0-or-later
"""What was seen: frozen, typed values that say what became of checks, samples, boots and runs.

The words are those of docs/architecture.md; there are no synonyms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from patchlab.calibration import Calibration
from patchlab.model import Image, Sampling
from patchlab.review import Asked, RuleResult


class Outcome(StrEnum):
    """What became of a check or a boot: NOT_RUN until there is evidence of better."""

    PASSED = "passed"
    FAILED = "failed"
    UNSUPPORTED = "unsupported"
    SKIPPED = "skipped"
    SPLAT = "splat"
    CRASHED = "crashed"
    TIMED_OUT = "timed out"
    LOST = "lost"
    NOT_RUN = "not run"


class Clock(StrEnum):
    """What a timing counts."""

    ICOUNT = "icount"  # guest instructions: TCG, -icount, one vCPU
    WALL = "wall"  # nanoseconds: KVM proved on this host
    TCG = "tcg"  # nanoseconds under TCG without icount: stored, never compared


class BootKind(StrEnum):
    CHECK = "check"
    BENCH = "bench"


class Polarity(StrEnum):
    LOWER = "lower"  # lower is better
    HIGHER = "higher"


@dataclass(frozen=True, slots=True)
class CheckInfo:
    """What a feature says of one of its checks (guest/agent.py describe)."""

    id: str
    feature: str
    sentence: str
    source: str  # where the expectation comes from
    red: str  # the variant (and how) on which this check has been seen to fail; "" is unproved
    green: str = "base"  # the variant on which it passes
    patience: float = 1.0  # how many times limits.check it may take

    @property
    def places(self) -> frozenset[str]:
        """What ``red`` names, each as it is spelled there: a variant, and kernel options."""
        return frozenset(place.strip() for place in self.red.split(";"))


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What a feature says of one of its metrics."""

    id: str
    feature: str
    sentence: str
    unit: str  # what one sample is divided by: "page", "byte", "round trip"; value is per unit
    polarity: Polarity
    clocks: tuple[Clock, ...]  # the clocks it is fit for
    primary: bool
    margin: float  # relative change that matters under icount, 0.001 is 0.1 %
    statistic: str  # the in-boot statistic under icount: "median" or "minimum"
    operation: str = ""  # row of the table of levels; "" is in no table
    subject: str = ""  # what does it: "" the arm's own feature, else a comparator ("tmpfs")
    absolute_margin: float = 0.0  # instructions a unit that matter
    wall_margin: float = 0.03  # relative change that matters under wall
    wall_absolute_margin: float = 0.0  # nanoseconds a unit that matter

    def margin_of(self, clock: Clock, level: float | None) -> float:
        """The relative change that matters at ``level``: a smaller one, either way, does not.

        The larger of the clock's two margins, the absolute one as a share of ``level``.
        """
        wall = clock is Clock.WALL
        relative = self.wall_margin if wall else self.margin
        absolute = self.wall_absolute_margin if wall else self.absolute_margin
        return max(relative, absolute / level) if level else relative


@dataclass(frozen=True, slots=True)
class CheckResult:
    id: str
    feature: str
    outcome: Outcome
    expected: str
    seen: str
    seconds: float  # wall seconds on the guest's clock


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one metric in one boot: guest nanoseconds a unit, by the guest's clock."""

    metric: str
    feature: str
    index: int
    value: float
    warmup: bool
    idle: bool  # the guest slept in the window: not measurable under icount
    added: float | None = None  # by a calibration's slowdown (guest/slowdown.py), a unit


@dataclass(frozen=True, slots=True)
class MetricOutcome:
    """A metric that gave no samples in a boot, and why."""

    metric: str
    feature: str
    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a console log that makes a boot unclean."""

    kind: str  # oops, panic, warn, lockdep, kasan, ubsan, hung task, rcu stall, kmemleak, …
    title: str
    line: int  # 1-based, in the console log
    fingerprint: str  # kind and the first five frames, numbers removed
    excerpt: tuple[str, ...]
    known: str = ""  # the reason of a dated exception, if one covers it


@dataclass(frozen=True, slots=True)
class BootRecord:
    """One boot, as it is stored: written before the next one starts."""

    variant: str
    image_key: str
    kind: BootKind
    clock: Clock
    block: int  # 0-based; check boots have -1
    order: int  # place in the block
    attempt: int  # 1, or 2 after a lost one
    outcome: Outcome
    reason: str
    seed: int
    started: str  # ISO 8601, UTC
    seconds: float  # wall, host
    ready_seconds: float  # QEMU start to the agent's first reply; 0 if never
    argv: tuple[str, ...]
    facts: Mapping[str, str]  # what the guest said of itself: uname, cpu, clocksource, cmdline
    console: str  # the whole console log
    checks: tuple[CheckResult, ...] = ()
    samples: tuple[Sample, ...] = ()
    unmeasured: tuple[MetricOutcome, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a run stands on; all of it is printed in the report."""

    lab_version: str
    lab_commit: str
    command: tuple[str, ...]
    host: Mapping[str, str]  # cpu, cores, memory, kernel, distribution
    qemu: str
    kvm: str  # proved, refused: <why>, absent
    clock: Clock
    root: Mapping[str, str]  # suite, key, python, xfsprogs
    machine: Mapping[str, str]
    virtme: str


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as read back from the results: everything a report needs, no guest."""

    id: int
    name: str
    title: str
    baseline: str
    arms: tuple[str, ...]
    features: tuple[str, ...]
    sampling: Sampling
    clock: Clock
    started: str
    finished: str  # "" while it is going on or was interrupted
    seconds: float  # wall clock of the whole run
    stages: Mapping[str, float]  # stage -> wall seconds
    provenance: Provenance
    images: Mapping[str, Image]  # variant -> image
    boots: tuple[BootRecord, ...]
    checks: tuple[CheckInfo, ...]
    metrics: tuple[MetricInfo, ...]
    asked: tuple[Asked, ...] = ()  # the review ledgers of the arms' series
    rules: tuple[RuleResult, ...] = ()
    kinds: tuple[BootKind, ...] = (BootKind.CHECK, BootKind.BENCH)  # of the boots it makes
    ground: Mapping[str, str] = field(default_factory=dict)  # what a boot means: resume.py
    calibration: Calibration | None = None  # the newest of the same clock and QEMU
    sensitivity: tuple[str, ...] = ()  # CPU models that every arm was also booted with
