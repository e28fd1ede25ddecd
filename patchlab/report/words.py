# SPDX-License-Identifier: GPL-2.0-or-later
"""How every report says a number, a time, a change, and a whole comparison in one sentence."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from patchlab.record import BootKind, BootRecord, Clock, Outcome, StoredRun
from patchlab.reviews import ledger
from patchlab.runs import resume
from patchlab.verdict import CheckComparison, Comparison, MetricComparison, Verdict
from patchlab.verdicts import compare, looks
from patchlab.verdicts.operations import Cell

NONE = "–"
MINUS = "−"
CLOCKS = {
    Clock.ICOUNT: "icount: guest instructions. It counts path length, not caches, stalls or"
    " parallelism.",
    Clock.WALL: "wall: nanoseconds under KVM.",
    Clock.TCG: "tcg: nanoseconds under TCG without icount. Kept, never compared.",
}
_SHOWN = 4  # of the boots that a run lacks
# Control characters, and those that turn the direction of text around, shown and not obeyed.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def visible(text: str) -> str:
    """Guest text that can neither steer a terminal nor deceive a reader."""
    return _UNSEEN.sub(_picture, text.replace("\r\n", "\n"))


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def number(value: float | None, digits: int = 4) -> str:
    """So many significant digits, or whole with thousands separators: 956.6, 78,384."""
    return _decimal(value, digits, "")


def change(value: float | None) -> str:
    """A signed difference of three significant digits: +164, −0.0197."""
    return _decimal(value, 3, "+")


def _decimal(value: float | None, digits: int, sign: str) -> str:
    if value is None or not math.isfinite(value):
        return NONE
    size = abs(value)
    places = digits - 1 - math.floor(math.log10(size)) if 0 < size < 10 ** (digits - 1) else 0
    return _signed(f"{value:{sign},.{min(places, 6)}f}")


def percent(ratio: float | None, places: int = 2) -> str:
    """A signed relative change: +0.21 %."""
    if ratio is None or not math.isfinite(ratio):
        return NONE
    return _signed(f"{100 * ratio:+,.{places}f} %")


def places_for(low: float | None, high: float | None) -> int:
    """Decimals of a per cent that show two digits of the interval's half width."""
    if low is None or high is None or not high > low:
        return 2
    return min(4, max(1, 1 - math.floor(math.log10(50 * (high - low)))))


def interval(metric: MetricComparison) -> str:
    """``+0.18 … +0.24``, with the decimals of ``effect()``; "" without one."""
    if metric.low is None or metric.high is None:
        return ""
    places = places_for(metric.low, metric.high)
    return " … ".join(percent(x, places).removesuffix(" %") for x in (metric.low, metric.high))


def confidence(comparison: Comparison) -> str:
    """``95 %``; more with planned looks: ``97.8 %``."""
    return f"{100 * (1 - comparison.alpha):.3g} %"


def effect(metric: MetricComparison) -> str:
    """``+0.21 %``, or a dash."""
    return percent(metric.ratio, places_for(metric.low, metric.high))


def _signed(text: str) -> str:
    digits = re.sub(r"[^0-9]", "", text)
    if digits and not int(digits):
        return text.replace("-", "±").replace("+", "±")
    return text.replace("-", MINUS)


def p_value(p: float | None) -> str:
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def spread(cell: Cell) -> str:
    """``±0.021 %, 5 boots``."""
    if cell.spread is None:
        return plural(cell.boots, "boot")
    return f"±{100 * cell.spread:.2g} %, {plural(cell.boots, 'boot')}"


def duration(seconds: float) -> str:
    """42.1 s, 14 min 3 s, 1 h 2 min."""
    if seconds < 59.95:  # 59.95 would round to 60.0 s
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def verdict(metric: MetricComparison) -> str:
    """The verdict's words; ``equivalent`` always with its margin."""
    if metric.verdict is Verdict.EQUIVALENT and metric.ratio is not None and not metric.reason:
        return f"equivalent within ±{100 * metric.margin:.2g} %"
    return metric.verdict.value


def wall_clock(run: StoredRun) -> str:
    if run.finished:
        return f"wall clock of the run {duration(run.seconds)}"
    spent = sum(run.stages.values())
    so_far = f", {duration(spent)} in the stages that ended" if spent else ""
    return f"the run did not finish{so_far}"


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def place(boot: BootRecord) -> str:
    where = "check" if boot.kind is BootKind.CHECK else f"bench, block {boot.block}"
    return where if boot.attempt == 1 else f"{where}, attempt {boot.attempt}"


def short(arms: Sequence[str]) -> tuple[str, ...]:
    """``v1``, ``v2`` for arms that are one revision each of one series; else their names."""
    parts = [arm.split("@") for arm in arms]
    plain = all(len(part) == 2 and " + " not in part[1] for part in parts)
    if plain and len({part[0] for part in parts}) == 1:
        return tuple(part[1] for part in parts)
    return tuple(arms)


def blocks(run: StoredRun) -> str:
    """``5 blocks``; ``10 blocks, the second of 3 planned looks``."""
    planned = run.sampling.looks
    made = looks.seen(run)
    if not planned:
        return plural(made, "block")
    which = looks.ordinal(planned.index(made) + 1) if made else "before the first"
    return (
        f"{plural(made, 'block')}, {'the ' if made else ''}{which} of {len(planned)} planned looks"
    )


# ---------------------------------------------------------------- sentences


def headlines(run: StoredRun, comparisons: Sequence[Comparison]) -> list[str]:
    """One sentence a ledger, one a candidate; one for the run when it has no candidate."""
    reviewed = [ledger.headline(one) for one in ledger.ledgers(run)]
    if comparisons:
        compared = [f"{headline(comparison)}; {wall_clock(run)}" for comparison in comparisons]
        return [*reviewed, *compared]
    arms = ", ".join(run.arms)
    alone = f"{arms}: nothing to compare with; {_one_arm(run)}; {wall_clock(run)}"
    return [*reviewed, alone]


def headline(comparison: Comparison) -> str:
    """``A against B: 7 of 8 checks gone (unsupported), …; 3 of 12 metrics faster, …``"""
    parts = [check_sentence(comparison.checks), metric_sentence(comparison.metrics)]
    if comparison.equal_kernels:
        parts.insert(0, "equal kernels")
    return f"{comparison.candidate} against {comparison.baseline}: {'; '.join(parts)}"


def check_sentence(checks: Sequence[CheckComparison]) -> str:
    if not checks:
        return "no checks"
    return _share([_check_words(check) for check in checks], "check")


def _check_words(check: CheckComparison) -> str:
    after = check.candidate.outcome if check.candidate else Outcome.NOT_RUN
    match compare.change_word(check):
        case "same":
            return f"{after} on both"
        case "gone" | "regression" | "changed" | "not compared" as word:
            return f"{word} ({after})"
        case word:
            return word


def metric_sentence(metrics: Sequence[MetricComparison]) -> str:
    if not metrics:
        return "no metrics"
    return _share([metric.verdict.value for metric in metrics], "metric")


def _share(words: Sequence[str], noun: str) -> str:
    """``7 of 8 checks gone (unsupported), 1 passed on both``: the frequent first."""
    counted = Counter(words).most_common()
    (word, count), *others = counted
    first = f"{count} of {plural(len(words), noun)} {word}"
    if not others:
        first = f"all {plural(count, noun)} {word}" if count > 1 else f"1 {noun} {word}"
    return ", ".join([first, *(f"{count} {word}" for word, count in others)])


def _one_arm(run: StoredRun) -> str:
    results = [
        compare.check_result(run, arm, info).outcome.value
        for arm in run.arms
        for info in compare.check_infos(run)
    ]
    return _share(results, "check") if results else "no checks"


def alerts(run: StoredRun) -> list[str]:
    """What a reader must not overlook about the run as a whole."""
    return list(_alerts(run))


def _alerts(run: StoredRun) -> Iterable[str]:
    if not run.finished:
        yield f"This run did not finish. {_lacks(run)}"
    kinds = {boot.kind for boot in run.boots}
    for kind in run.kinds:
        if kind not in kinds:
            what = "checks" if kind is BootKind.CHECK else "metrics"
            yield f"No {kind} boot is stored: there is no result for any of the {what}."
    if run.clock is Clock.TCG:
        yield "Times were taken under TCG without icount: they get no verdict."
    for outcome in (Outcome.CRASHED, Outcome.TIMED_OUT, Outcome.SPLAT, Outcome.LOST):
        bad = [boot for boot in run.boots if boot.outcome is outcome]
        if bad:
            where = "; ".join(_where(run, boot) for boot in bad)
            yield f"{plural(len(bad), 'boot')} ended as {outcome}: {where}."


def _lacks(run: StoredRun) -> str:
    lack = resume.missing(run)
    total = resume.planned(run)
    if not lack:
        return f"All of its {total} boots are stored."
    places = [
        f"{kind} boot of {arm}" + (f", block {block}" if kind is BootKind.BENCH else "")
        for arm, kind, block in lack
    ]
    rest = f"; and {len(lack) - _SHOWN} more" if len(lack) > _SHOWN else ""
    shown = "; ".join(places[:_SHOWN])
    return f"{len(lack)} of {total} boots are missing: {shown}{rest}.{_remedy(run)}"


def _remedy(run: StoredRun) -> str:
    whole = set(run.kinds) == set(BootKind)  # check, bench and boot begin again instead
    return f" runner.py run {run.name} --resume makes them." if whole else ""


def _where(run: StoredRun, boot: BootRecord) -> str:
    here = (boot.variant, boot.kind, boot.block, boot.order)
    later = [
        other.outcome
        for other in run.boots
        if (other.variant, other.kind, other.block, other.order) == here
        and other.attempt > boot.attempt
    ]
    again = f" (tried again: {later[-1]})" if later else ""
    return f"{boot.variant}, {place(boot)}{again}"


def together(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Names that share a text, in one line each: ``B1, B2: unsupported``."""
    names: dict[str, list[str]] = {}
    for name, text in pairs:
        names.setdefault(text, []).append(name)
    return [f"{', '.join(members)}: {text}" for text, members in names.items()]
