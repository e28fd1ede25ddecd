# SPDX-License-Identifier: GPL-2.0-or-later
"""A calibration for a terminal; and in one sentence, for every report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from patchlab.calibration import AGENT, KERNEL, Calibration, MetricCalibration, Share, Slowed
from patchlab.record import StoredRun
from patchlab.report import words

_STEADY = 0.001  # sd of a boot's statistic that a metric is asked to keep under icount
_SIZE = 0.005  # the slowdown that the sentence speaks of


def whole(found: Calibration) -> Group:
    """What the verb prints; all of it is Text, never markup."""
    parts: list[RenderableType] = [Text(line) for line in _head(found)]
    parts += [_metrics(found), *(Text(line) for line in _verdicts(found))]
    for where in (KERNEL, AGENT):
        if any(one.where == where for metric in found.metrics for one in metric.slowed):
            parts.append(_slowed(found, where))
    parts += [Text(line) for line in _missing(found)]
    return Group(*parts)


def sentence(run: StoredRun, now: datetime | None = None) -> str:
    """What every report says of the instrument: the last figures, and how old they are."""
    found = run.calibration
    if found is None:
        return (
            "Not calibrated: no calibration with this clock, QEMU and features is stored."
            " runner.py calibrate makes one."
        )
    said = [
        f"Calibrated {age(found, now)} before this report (run {found.run}, {found.blocks} blocks,"
        f" on {found.variant})",
        f"{100 * (found.full.value or 0):.2g} % of {found.full.count:,} comparisons with a"
        " rebuilt kernel called faster or slower",
    ]
    if kernel := [one for metric in found.metrics for one in metric.slowed if _is_named(one)]:
        seen = sum(one.found for one in kernel) / len(kernel)
        worst = max(one.worst or one.error for one in kernel)
        said.append(
            f"a window made 0.5 % longer in the kernel is found in {100 * seen:.1f} % of tries with"
            f" {found.draw} blocks ({words.plural(len(kernel), 'metric')}; the size is"
            f" {100 * worst:.2g} points off at worst)"
        )
    if narrow := _narrow(found):
        said.append(f"a margin is below the shift of a kernel that does the same work: {narrow}")
    return "; ".join(said) + "."


def _is_named(one: Slowed) -> bool:
    return one.where == KERNEL and abs(one.asked - _SIZE) < 1e-9


def age(found: Calibration, now: datetime | None = None) -> str:
    """``3 h``, ``12 days``."""
    hours = ((now or datetime.now(UTC)) - datetime.fromisoformat(found.started)).total_seconds()
    hours /= 3600
    if hours < 1:
        return "less than an hour"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def _head(found: Calibration) -> Iterable[str]:
    yield f"calibration · run {found.run} · on {found.variant} · {found.started}"
    yield f"clock {found.clock} · {found.qemu} · -cpu {found.cpu} · {found.host}"
    which = "every set" if found.every else f"{found.tries} sets, drawn,"
    yield (
        f"{found.blocks} blocks; a try is {which} of {found.draw} of them, judged as a run would"
        " be. Tries share blocks: intervals leave out each block in turn."
    )
    yield ""


def _metrics(found: Calibration) -> Table:
    arms = list(dict.fromkeys(one.arm for metric in found.metrics for one in metric.alike))
    short = [_short(arm) for arm in arms]
    table = _table(
        "The same work twice, in per cent",
        "metric",
        "level",
        "sd of boots, worst arm",
        *(f"{name}: change" for name in short),
        *(f"{name}: sd of d" for name in short),
    )
    for metric in found.metrics:
        by_arm = {one.arm: one for one in metric.alike}
        loose = metric.loosest is not None and metric.loosest > _STEADY
        alike = [by_arm.get(arm) for arm in arms]
        table.add_row(
            Text(metric.metric),
            words.number(metric.level),
            Text(_cell(metric.loosest), style="bold red" if loose else ""),
            *(_cell(one.ratio if one else None, "+") for one in alike),
            *(_cell(one.spread if one else None) for one in alike),
        )
    return table


def _cell(share: float | None, sign: str = "") -> str:
    """In per cent, without the unit."""
    if share is None:
        return words.NONE
    text = f"{100 * share:{sign}.3f}"
    return text.replace("-", words.MINUS) if float(text) else "0.000"


def _short(arm: str) -> str:
    """``A`` for the image under another option, ``A′ 1`` for a rebuilt one."""
    return f"A′ {arm.rsplit('padding-', 1)[1][:1]}" if "padding-" in arm else "A"


def _verdicts(found: Calibration) -> Iterable[str]:
    over = [m.metric for m in found.metrics if m.loosest is not None and m.loosest > _STEADY]
    known = sum(metric.loosest is not None for metric in found.metrics)
    yield (
        f"{known - len(over)} of {known} metrics keep their boots within {100 * _STEADY:g} % (sd)"
        + (f"; not: {', '.join(over)}" if over else "")
    )
    if narrow := _narrow(found):
        yield f"margin below the shift of a kernel that does the same work: {narrow}; widen it"
    yield "The first arm against the rebuilt ones, each try, metric by metric:"
    yield f"  p below .05, unadjusted, no margin:  {_share(found.unadjusted)}"
    yield f"  called faster or slower:             {_share(found.full)}"
    yield f"  said to be the same:                 {_share(found.equivalent)}"
    yield f"  a comparison of arms that calls one: {_share(found.full_runs)}"
    yield ""


def _narrow(found: Calibration) -> str:
    return ", ".join(
        f"{one.metric} (±{100 * one.margin:g} %, shifted by {100 * one.shift:.2f} %)"
        for one in found.metrics
        if one.narrow
    )


def _share(share: Share) -> str:
    """``1.2 % (0.4 … 2.0)``, with how many."""
    if share.value is None:
        return words.NONE
    of = f"of {share.count:,}"
    if share.low is None or share.high is None:
        apart = words.plural(share.apart, "set")
        return f"{100 * share.value:.2g} % ({of}; {apart} without a common block)"
    return f"{100 * share.value:.2g} % ({100 * share.low:.2g} … {100 * share.high:.2g}; {of})"


def _slowed(found: Calibration, where: str) -> Table:
    title = {
        KERNEL: "Slower by a known size, in the kernel's own path: each fault and system call",
        AGENT: "Slower by a known size, in the agent: an empty loop in the window",
    }[where]
    table = _table(
        title, "metric", "asked", "true", "seen", "off, median", "at worst", "found", "slower",
    )  # fmt: skip
    for metric in found.metrics:
        for one in (one for one in metric.slowed if one.where == where):
            table.add_row(
                Text(metric.metric),
                words.percent(one.asked, 1),
                words.percent(one.true, 3),
                words.percent(one.seen, 3),
                f"{100 * one.error:.3f}",
                words.NONE if one.worst is None else f"{100 * one.worst:.3f}",
                _tries(one.found),
                _tries(one.slower),
            )
    return table


def _missing(found: Calibration) -> Iterable[str]:
    pairs = [(m.metric, why) for m in found.metrics for why in _reasons(m)]
    yield from words.together(pairs)


def _reasons(metric: MetricCalibration) -> Sequence[str]:
    return list(dict.fromkeys(reason for _, reason in metric.missing))


def _tries(share: float) -> str:
    return f"{100 * share:.0f} %"


def _table(title: str, *columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, title=Text(title), title_justify="left", pad_edge=False)
    table.title_style = ""
    for place, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if place else "left", no_wrap=not place)
    return table
