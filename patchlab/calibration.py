# SPDX-License-Identifier: GPL-2.0-or-later
"""What a calibration has shown of the instrument: plain values, stored and printed.

verdicts/calibration.py makes them from a run of the verb calibrate. Shares and changes are
ratios: 0.005 is 0.5 %.
"""

from __future__ import annotations

from dataclasses import dataclass

KERNEL, AGENT = "kernel", "agent"
SERIES = "calibration"  # patches/calibration
SPIN, PADDINGS = f"{SERIES}@spin", (f"{SERIES}@padding-1", f"{SERIES}@padding-2")
RUN = "calibrate"  # the name of such a run
ARMS = ("lab.arm=a", "lab.arm=b")  # kernel options that nothing reads


def slow_option(where: str, share: float) -> str:
    """The kernel option that guest/slowdown.py reads."""
    return f"lab.slow={where}:{share:.4f}"


@dataclass(frozen=True, slots=True)
class Share:
    """How often something happened in ``count`` comparisons, and how sure that is.

    The interval is a jackknife over the blocks, as the tries share them: none without spread
    over blocks (every try agreed), where ``apart`` tries without a common block say how much
    that means.
    """

    value: float | None  # None when nothing was compared
    low: float | None
    high: float | None
    count: int
    apart: int


@dataclass(frozen=True, slots=True)
class Alike:
    """One metric on two arms that do the same work."""

    arm: str
    ratio: float | None  # mean relative change over all blocks
    low: float | None  # 95 % interval
    high: float | None
    spread: float | None  # standard deviation of the block's log ratio
    boots: float | None = None  # standard deviation of the logs of this arm's boots' statistics


@dataclass(frozen=True, slots=True)
class Slowed:
    """One metric on an arm that is slower by a known share."""

    where: str  # KERNEL or AGENT
    asked: float
    true: float  # what was counted (kernel) or timed (agent) as added, mean over the blocks
    seen: float  # what the estimator gave, mean over the tries
    found: float  # share of tries whose adjusted p and sign say so
    slower: float  # share of tries with the verdict slower
    error: float  # median over the tries of |seen - true|
    within: float  # share of tries with |seen - true| at most 0.001
    worst: float | None = None  # the largest |seen - true| of a try


@dataclass(frozen=True, slots=True)
class MetricCalibration:
    feature: str
    metric: str
    unit: str
    level: float | None  # of the first arm
    spread: float | None  # standard deviation of the logs of the boots' statistics
    margin: float
    alike: tuple[Alike, ...]
    slowed: tuple[Slowed, ...]
    missing: tuple[tuple[str, str], ...] = ()  # arm and why it has nothing

    @property
    def loosest(self) -> float | None:
        """The largest spread of boots on any arm that does the same work."""
        known = [one for one in (self.spread, *(a.boots for a in self.alike)) if one is not None]
        return max(known, default=None)

    @property
    def shift(self) -> float:
        """The largest change, either way, between arms that do the same work."""
        return max((abs(one.ratio) for one in self.alike if one.ratio is not None), default=0.0)

    @property
    def narrow(self) -> bool:
        """The margin is below what a mere rebuild of the kernel shifts."""
        return self.shift > self.margin


@dataclass(frozen=True, slots=True)
class Calibration:
    run: int
    started: str  # ISO 8601, UTC
    variant: str
    clock: str
    host: str
    qemu: str
    cpu: str
    blocks: int
    draw: int  # blocks of one try
    tries: int  # sets of blocks, all different; they overlap
    every: bool  # whether they are all that there are
    # Of a metric, on a rebuilt kernel against the first arm; on the same image if none was rebuilt.
    unadjusted: Share  # p < .05, without margin
    full: Share  # faster or slower
    full_runs: Share  # at least one faster or slower in a comparison of arms
    metrics: tuple[MetricCalibration, ...]
    equivalent: Share = Share(None, None, None, 0, 0)  # said to be the same
