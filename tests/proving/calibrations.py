# SPDX-License-Identifier: GPL-2.0-or-later
"""``calibration``: what the instrument finds, and does not find, by real boots. An hour or more.

A stored calibration counts while the agent, the guest root, QEMU and the code that reads it are
today's; else the verb makes one, as a user would.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from patchlab import calibration, proc
from patchlab.calibration import KERNEL, Calibration, MetricCalibration, Slowed
from patchlab.explain import explain
from patchlab.guests import kvm, root
from patchlab.record import Clock, StoredRun
from patchlab.report import calibrated as words
from patchlab.report import plain
from patchlab.store import content
from patchlab.store.results import Results
from patchlab.verdicts import calibration as reading
from patchlab.verdicts import stats
from tests.proving import desk, evidence
from tests.proving.desk import Proving

# On which variant, and for which features: together every metric that is shipped.
_WANTED = (
    ("base", ("fuse_writable_mmap", "virtio_pmem")),
    ("fuse-direct-mmap@v2", ("fuse_direct_mmap",)),
)
_BLOCKS = 7
_WIDTH = 130  # columns
_LIMIT = 4 * 3600.0  # seconds
_SIZE = 0.005  # the slowdown that the promises are about
_STEADY, _MAY_MISS = 0.001, 0.2  # sd of a metric's boots; which share may spread more
_ALARMS, _FOUND, _OFF = 0.01, 0.95, 0.001


class Instrument(msgspec.Struct, frozen=True):
    """One calibration, and what it stands on."""

    key: str
    found: Calibration
    commit: str
    when: str


def calibrated(proving: Proving) -> list[str]:
    """Every shipped metric, against itself and against slowdowns of a counted size."""
    file = proving.evidence / "calibration.json"
    before = {one.key: one for one in evidence.load(file, Instrument)}
    shown: list[Instrument] = []
    for variant, features in _WANTED:
        key = _key(proving, variant, features)
        if key not in before:
            stored = _stored(proving, variant, features) or _made(proving, variant, features)
            found = reading.summarise(stored)
            commit = stored.provenance.lab_commit
            before[key] = Instrument(key, found, commit, stored.started)
        shown.append(before[key])
        evidence.store(file, "calibration", shown)
    evidence.write(file.with_suffix(".md"), page(shown))
    return wrong([one.found for one in shown])


def _key(proving: Proving, variant: str, features: Sequence[str]) -> str:
    modules = (stats, reading, calibration)
    return content.digest(
        *(desk.RECIPE, variant, kvm.qemu_version(), root.key(proving.lab.machine)),
        *(desk.agent_code(desk.REPOSITORY / "guest", feature) for feature in features),
        *(Path(str(module.__file__)).read_bytes() for module in modules),
    )


def _stored(proving: Proving, variant: str, features: Sequence[str]) -> StoredRun | None:
    """The newest finished calibration of these that was made on today's ground."""
    file = desk.REPOSITORY / "results" / "lab.sqlite"
    if not file.exists():
        return None
    with Results.open(file) as results:
        for line in results.runs():
            if line.name != calibration.RUN or not line.finished or line.clock is not Clock.ICOUNT:
                continue
            stored = results.load_run(line.id)
            mine = stored.baseline.partition(" + cmdline:")[0] == variant
            if (
                mine
                and set(stored.features) == set(features)
                and stored.sampling.blocks >= _BLOCKS
                and not explain.drift(stored, root.key(proving.lab.machine))
            ):
                return stored
    return None


def _made(proving: Proving, variant: str, features: Sequence[str]) -> StoredRun:
    wanted = [word for name in features for word in ("--feature", name)]
    argv = [sys.executable, "runner.py", "calibrate", variant, "--blocks", str(_BLOCKS), *wanted]
    with proving.progress.step(f"calibrate on {variant}"):
        proc.run(argv, cwd=desk.REPOSITORY, deadline=_LIMIT)
    stored = _stored(proving, variant, features)
    assert stored is not None, "the verb stored no run"
    return stored


# ---------------------------------------------------------------- promises


def wrong(found: Sequence[Calibration]) -> list[str]:
    """What breaks a promise of docs/measurement.md, one line each."""
    metrics = [metric for one in found for metric in one.metrics if metric.loosest is not None]
    loose = [metric for metric in metrics if not _steady(metric)]
    problems = [
        f"{metric.metric}: {said}"
        for metric in metrics
        if _steady(metric)
        for slow in metric.slowed
        if slow.where == KERNEL and slow.asked == _SIZE
        for said in _missed(slow)
    ]
    if len(loose) > _MAY_MISS * len(metrics):
        names = ", ".join(metric.metric for metric in loose)
        problems.append(f"{len(loose)} of {len(metrics)} metrics spread too much: {names}")
    for one in found:
        if one.full.value is None or one.full.value > _ALARMS:
            problems.append(f"{one.variant}: false alarms in {one.full.value} of comparisons")
    problems += [f"{metric.metric}: its margin is too small" for metric in metrics if metric.narrow]
    return problems


def _steady(metric: MetricCalibration) -> bool:
    return metric.loosest is not None and metric.loosest <= _STEADY


def _missed(slow: Slowed) -> Iterable[str]:
    if slow.found < _FOUND:
        yield f"{100 * slow.asked:g} % slower is found in {100 * slow.found:.0f} % of tries"
    if slow.error > _OFF:
        yield f"{100 * slow.asked:g} % slower is seen {100 * slow.error:.2f} points off"


# ---------------------------------------------------------------- the page


def page(shown: Sequence[Instrument]) -> str:
    """Its tables are those that the verb prints; dates and commits are those of the boots."""
    metrics = [
        metric for one in shown for metric in one.found.metrics if metric.loosest is not None
    ]
    steady = sum(_steady(metric) for metric in metrics)
    alike = sum(one.found.full.count for one in shown)
    called = sum(round((one.found.full.value or 0) * one.found.full.count) for one in shown)
    problems = wrong([one.found for one in shown])
    lines = [
        "# The instrument, calibrated",
        "",
        "Kernels whose difference is known, shown to the lab by `runner.py calibrate`;",
        "[measurement.md](../measurement.md) says what the arms are and why that is honest.",
        "",
        "| promise | asked | seen |",
        "|---|---|---|",
        "| sd of the boots at most 0.1 %, on each arm of the same work | four of five metrics "
        f"| {steady} of {len(metrics)} |",
        f"| a rebuilt kernel is called faster or slower | at most 1 % | {called} of {alike:,} "
        f"comparisons; tries overlap: {2 * len(metrics)} pairs of a metric and a kernel |",
        *_size_rows(metrics),
        "",
        *([f"Not as promised: {'; '.join(problems)}."] if problems else ["All hold."]),
    ]
    for one in shown:
        lines += [
            *("", f"## On `{one.found.variant}`", "", f"At commit `{one.commit}`.", "", "```"),
            *_text(one.found).splitlines(),
            "```",
        ]
    return "\n".join(lines) + "\n"


def _size_rows(metrics: Sequence[MetricCalibration]) -> Iterable[str]:
    slow = [
        one
        for metric in metrics
        if _steady(metric)
        for one in metric.slowed
        if one.where == KERNEL and one.asked == _SIZE
    ]
    if not slow:
        return
    found = sum(one.found >= _FOUND for one in slow)
    near = sum(one.error <= _OFF for one in slow)
    yield (
        "| a window made 0.5 % longer in the kernel is found by five blocks | in 95 % of tries "
        f"| {found} of {len(slow)} steady metrics |"
    )
    yield f"| its size is right | within 0.1 points | {near} of {len(slow)} steady metrics |"


def _text(found: Calibration) -> str:
    return plain.render([words.whole(found)], _WIDTH).replace("`", "'")
