# SPDX-License-Identifier: GPL-2.0-or-later
"""A stored run -> what differs between two of its arms. Pure: no guest, no files."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from patchlab.errors import UsageError
from patchlab.model import options_of
from patchlab.record import (
    BootKind,
    BootRecord,
    CheckInfo,
    CheckResult,
    Clock,
    MetricInfo,
    Outcome,
    StoredRun,
)
from patchlab.runs import resume
from patchlab.verdict import CheckComparison, Comparison, MetricComparison, Verdict
from patchlab.verdicts import levels, looks, sensitivity, stats

SIGN_FLIP_BLOCKS = (8, 20)  # fewer say nothing, more take too long

# One check, several results: the first of these that is there counts. Absence of evidence
# gives way to any evidence, and of evidence the worst counts.
WORST_FIRST = (
    Outcome.CRASHED,
    Outcome.TIMED_OUT,
    Outcome.FAILED,
    Outcome.SPLAT,
    Outcome.UNSUPPORTED,
    Outcome.PASSED,
    Outcome.SKIPPED,
    Outcome.LOST,
    Outcome.NOT_RUN,
)
# What a kernel did, as opposed to what nobody could see.
_EVIDENCE = frozenset(WORST_FIRST[:6])


def compare(run: StoredRun, baseline: str, candidate: str) -> Comparison:
    """Everything that differs between two arms. Raises UsageError for an arm not in the run."""
    for arm in (baseline, candidate):
        if arm not in run.arms:
            raise UsageError(
                f"run {run.id} has no arm {arm}", hint=f"its arms are {', '.join(run.arms)}"
            )
    equal = equal_kernels(run, baseline, candidate)
    whole, run = run, looks.at_look(run)
    own = _compare_metrics(run, baseline, candidate, equal)
    models = sensitivity.pairs(run, baseline, candidate)
    others = {model: _compare_metrics(run, *arms, equal) for model, arms in models.items()}
    arms = [(baseline, candidate), *models.values()]
    notes = [
        *_notes(run, whole, [arm for pair in arms for arm in pair], equal),
        *sensitivity.notes(run, models, own, others),
    ]
    return Comparison(
        run=run.id,
        baseline=baseline,
        candidate=candidate,
        clock=run.clock,
        equal_kernels=equal,
        checks=_compare_checks(run, baseline, candidate),
        metrics=sensitivity.weighed(own, others),
        notes=tuple(notes),
        alpha=looks.alpha_of(run.sampling),
    )


def compare_all(run: StoredRun) -> list[Comparison]:
    """Every other arm against the run's baseline."""
    return [compare(run, run.baseline, arm) for arm in run.arms if arm != run.baseline]


def equal_kernels(run: StoredRun, one: str, other: str) -> bool:
    """Whether both arms run the same code with the same options.

    Code is what the allocated, non-note sections of vmlinux hold.
    """
    a, b = run.images.get(one), run.images.get(other)
    alike = options_of(one) == options_of(other)
    return alike and a is not None and b is not None and a.code_sha256 == b.code_sha256


# ---------------------------------------------------------------- checks


def check_result(run: StoredRun, variant: str, info: CheckInfo) -> CheckResult:
    """What became of one check on one arm; NOT_RUN, with the reason in ``seen``, without one."""
    boots = levels.boots_of(run, variant, BootKind.CHECK)
    results = [
        result
        for boot in boots
        if boot.outcome is not Outcome.LOST
        for result in boot.checks
        if (result.feature, result.id) == (info.feature, info.id)
    ]
    if results:
        return min(results, key=lambda result: WORST_FIRST.index(result.outcome))
    why = [f"the boot {_became(boot)}" for boot in boots if boot.outcome is not Outcome.PASSED]
    reason = "; ".join(why) or ("no boot tried it" if boots else "no check boot")
    return CheckResult(info.id, info.feature, Outcome.NOT_RUN, "", reason, 0.0)


def check_infos(run: StoredRun) -> tuple[CheckInfo, ...]:
    """Every check of the run; one with a result but no description is not left out."""
    infos = {(info.feature, info.id): info for info in run.checks}
    for boot in run.boots:
        for result in boot.checks:
            key = (result.feature, result.id)
            infos.setdefault(key, CheckInfo(result.id, result.feature, "not described", "", ""))
    return tuple(infos.values())


def known(info: CheckInfo, variant: str, outcome: Outcome) -> bool:
    """Whether the check is claimed to fail on just this variant, so that it is no news."""
    return outcome is Outcome.FAILED and variant in info.places


def regressed(comparison: Comparison) -> bool:
    """Whether the candidate is worse: a check that passed before, or a slower primary metric.

    A control takes its feature out on purpose, and the bare base never changed: what is gone there
    is a result.
    """
    parts = comparison.candidate.split(" + ")
    control = parts == ["base"] or any(part.endswith("@control") for part in parts)
    checks = [
        check
        for check in comparison.checks
        if check.regression
        and not (control and check.candidate and check.candidate.outcome is Outcome.UNSUPPORTED)
    ]
    slower = [m for m in comparison.metrics if m.verdict is Verdict.SLOWER and m.metric.primary]
    return bool(checks or slower)


def change_word(check: CheckComparison) -> str:
    """same, gone, new, regression, known failure, fixed, changed, or not compared."""
    before = check.baseline.outcome if check.baseline else Outcome.NOT_RUN
    after = check.candidate.outcome if check.candidate else Outcome.NOT_RUN
    if check.regression:
        return "gone" if after is Outcome.UNSUPPORTED else "regression"
    if before not in _EVIDENCE or after not in _EVIDENCE:
        return "not compared"
    if before is after:
        return "same"
    if check.known:
        return "known failure"
    if after is Outcome.PASSED:
        return "new" if before is Outcome.UNSUPPORTED else "fixed"
    return "changed"


def _compare_checks(run: StoredRun, baseline: str, candidate: str) -> tuple[CheckComparison, ...]:
    died = any(
        boot.outcome in (Outcome.CRASHED, Outcome.TIMED_OUT)
        for boot in levels.boots_of(run, candidate, BootKind.CHECK)
    )
    compared = []
    for info in check_infos(run):
        before, after = (check_result(run, arm, info) for arm in (baseline, candidate))
        # A check that a dying kernel never came to is the kernel's fault; one that a lost
        # instrument never came to is not.
        broke = after.outcome in _EVIDENCE or (after.outcome is Outcome.NOT_RUN and died)
        passed = (before.outcome is Outcome.PASSED, after.outcome is Outcome.PASSED)
        claimed = known(info, candidate, after.outcome)
        worse = passed == (True, False) and broke and not claimed
        compared.append(CheckComparison(info.id, info, before, after, worse, claimed))
    return tuple(compared)


# ---------------------------------------------------------------- metrics


def _compare_metrics(
    run: StoredRun, baseline: str, candidate: str, equal: bool
) -> tuple[MetricComparison, ...]:
    unlike = _unlike(run, baseline, candidate)
    alpha = looks.alpha_of(run.sampling)
    early = looks.early(run)
    sides = [
        (levels.arm_level(run, baseline, metric), levels.arm_level(run, candidate, metric))
        for metric in run.metrics
    ]
    pairs = [_pair(*side) for side in sides]
    effects = [
        stats.paired(
            [a for _, a, _ in pair],
            [b for _, _, b in pair],
            margin=levels.margin_of(metric, run.clock, [a for _, a, _ in pair]),
            confidence=1 - alpha,
        )
        for metric, pair in zip(run.metrics, pairs, strict=True)
    ]
    adjusted = stats.adjust(effects, [metric.primary for metric in run.metrics])
    rulings = [
        _absent(metric, run.clock, *side)
        or (stats.Ruling(Verdict.NOT_COMPARABLE, unlike) if unlike else None)
        or (stats.Ruling(Verdict.INCONCLUSIVE, early) if early and not equal else None)
        or _rule(metric, run.clock, pair, effect, values, equal, alpha)
        for metric, side, pair, effect, values in zip(
            run.metrics, sides, pairs, effects, adjusted, strict=True
        )
    ]
    return tuple(
        _metric(metric, run.clock, side, pair, effect, values, ruling)
        for metric, side, pair, effect, values, ruling in zip(
            run.metrics, sides, pairs, effects, adjusted, rulings, strict=True
        )
    )


_Pair = list[tuple[int, float, float]]  # block, baseline, candidate


def _pair(baseline: levels.ArmLevel, candidate: levels.ArmLevel) -> _Pair:
    other = dict(candidate.boots)
    return [(block, value, other[block]) for block, value in baseline.boots if block in other]


def _absent(
    metric: MetricInfo, clock: Clock, baseline: levels.ArmLevel, candidate: levels.ArmLevel
) -> stats.Ruling | None:
    """The ruling when a side has no level, or the metric is not one of this clock."""
    if clock is not Clock.TCG and clock not in metric.clocks:
        return stats.Ruling(Verdict.NOT_COMPARABLE, f"not a metric of the {clock} clock")
    missing = [side for side in (baseline, candidate) if side.level is None]
    if not missing:
        return None
    if len(missing) == 1 and missing[0].outcome is Outcome.UNSUPPORTED:
        verdict = Verdict.NEW if missing[0] is baseline else Verdict.GONE
        return stats.Ruling(verdict, missing[0].reason)
    why = "; ".join(f"{side.variant}: {side.reason}" for side in missing)
    return stats.Ruling(Verdict.NOT_COMPARABLE, why)


def _rule(
    metric: MetricInfo,
    clock: Clock,
    pair: _Pair,
    effect: stats.PairedEffect,
    adjusted: stats.Adjusted,
    equal: bool,
    alpha: float,
) -> stats.Ruling:
    if equal and clock is not Clock.TCG:
        return stats.Ruling(Verdict.EQUIVALENT, "equal kernels: the same code, byte for byte")
    ruling = stats.verdict(effect, adjusted, clock=clock, polarity=metric.polarity, alpha=alpha)
    clear = ruling.verdict in (Verdict.FASTER, Verdict.SLOWER)
    fewest, most = SIGN_FLIP_BLOCKS
    if clear and clock is Clock.WALL and fewest <= len(pair) <= most:
        p = stats.sign_flip([math.log(b) - math.log(a) for _, a, b in pair])
        if p >= alpha:
            return stats.Ruling(ruling.verdict, f"the sign-flip test disagrees (p = {p:.3f})")
    return ruling


def _metric(
    metric: MetricInfo,
    clock: Clock,
    side: tuple[levels.ArmLevel, levels.ArmLevel],
    pair: _Pair,
    effect: stats.PairedEffect,
    adjusted: stats.Adjusted,
    ruling: stats.Ruling,
) -> MetricComparison:
    # Levels of the paired blocks, so that the change on show is the one that was tested.
    before = statistics.geometric_mean(a for _, a, _ in pair) if pair else side[0].level
    after = statistics.geometric_mean(b for _, _, b in pair) if pair else side[1].level
    judged = ruling.verdict is not Verdict.NOT_COMPARABLE
    known = pair and before is not None and after is not None
    return MetricComparison(
        metric=metric,
        verdict=ruling.verdict,
        reason=ruling.reason,
        unit=levels.unit_of(metric, clock),
        baseline=before,
        candidate=after,
        change=after - before if judged and known and before and after else None,
        ratio=effect.ratio if judged else None,
        low=effect.low if judged else None,
        high=effect.high if judged else None,
        p=effect.p if judged else None,
        p_adjusted=adjusted.p if judged else None,
        blocks=effect.blocks,
        statistic=levels.statistic_of(metric, clock),
        margin=effect.margin,
    )


def _unlike(run: StoredRun, baseline: str, candidate: str) -> str:
    """Why the arms' times may not be set side by side, or ""."""
    if run.clock is Clock.TCG:
        return "times under TCG without icount are not compared"
    arms = (baseline, candidate)
    argvs = [boot.argv for arm in arms for boot in levels.bench_boots(run, arm).values()]
    found = {
        "QEMU programs": {argv[0] for argv in argvs if argv},
        "QEMU CPU models": {levels.cpu_model(argv) for argv in argvs},
        "configs": {" ".join(run.images[arm].fragments) for arm in arms if arm in run.images},
    }
    unlike = [
        f"unlike {what}: {' | '.join(sorted(seen))}"
        for what, seen in found.items()
        if len(seen) > 1
    ]
    return "; ".join(unlike)


# ---------------------------------------------------------------- notes


def _notes(run: StoredRun, whole: StoredRun, arms: Sequence[str], equal: bool) -> Iterable[str]:
    """``run`` is the ``whole`` one at its last look."""
    if equal:
        yield "equal kernels: both images have the same code, byte for byte"
    if not whole.finished:
        lack = len(resume.missing(whole))
        yield f"the run did not finish: {lack} of {resume.planned(whole)} boots are missing"
    if said := looks.sentence(whole):
        yield said
    for arm in arms:
        yield from _arm_notes(run, arm)
    if run.clock is Clock.ICOUNT:
        yield "the sign-flip test is left out: with so few blocks its p cannot be small"
    yield from _undescribed(run)


def _arm_notes(run: StoredRun, arm: str) -> Iterable[str]:
    for boot in run.boots:
        if boot.variant == arm and boot.outcome is Outcome.LOST:
            place = "check boot" if boot.kind is BootKind.CHECK else f"block {boot.block}"
            yield f"{place} of {arm}: attempt {boot.attempt} was lost ({boot.reason})"
    for boot in levels.boots_of(run, arm, BootKind.CHECK):
        if boot.outcome is not Outcome.PASSED:
            yield f"check boot of {arm} {_became(boot)}"
    bench = levels.boots_of(run, arm, BootKind.BENCH)
    for boot in bench:
        if boot.outcome is not Outcome.PASSED:
            yield f"block {boot.block} of {arm} is left out: the boot {_became(boot)}"
        elif boot.clock is not run.clock:
            yield f"block {boot.block} of {arm} is left out: its clock was {boot.clock}"
    planned = resume.planned_blocks(run)
    missing = set(range(planned)) - {boot.block for boot in bench}
    if missing and run.metrics and BootKind.BENCH in run.kinds:
        blocks = ", ".join(str(block) for block in sorted(missing))
        yield f"{arm} has no bench boot in block {blocks} of the {planned} planned"


def _became(boot: BootRecord) -> str:
    word = "did not run" if boot.outcome is Outcome.NOT_RUN else f"ended as {boot.outcome}"
    return f"{word} ({boot.reason})" if boot.reason else word


def _undescribed(run: StoredRun) -> Iterable[str]:
    known = {(metric.feature, metric.id) for metric in run.metrics}
    seen = {(s.feature, s.metric) for boot in run.boots for s in boot.samples}
    for feature, metric in sorted(seen - known):
        yield f"{metric} of {feature} has samples but no description: it is not compared"
