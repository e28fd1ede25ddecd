# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Sequence

import pytest

from patchlab.errors import UsageError
from patchlab.record import (
    BootKind,
    BootRecord,
    CheckResult,
    Clock,
    MetricOutcome,
    Outcome,
    Sample,
    StoredRun,
)
from patchlab.verdict import CheckComparison, Comparison, MetricComparison, Verdict
from patchlab.verdicts import compare, levels
from tests.report import sample_run
from tests.report.sample_run import BASE, CONTROL, FUSE, PMEM

B1 = sample_run.check_info(FUSE, "B1", "a shared writable map works")
FAULT = sample_run.metric_info("fault", FUSE, "a fault", "page", True)


def _run(boots: Sequence[BootRecord], **changes: object) -> StoredRun:
    run = dataclasses.replace(
        sample_run.sample_run(), boots=tuple(boots), checks=(B1,), metrics=(FAULT,)
    )
    return dataclasses.replace(run, **changes)  # type: ignore[arg-type]


def _checked(variant: str, result: Outcome, **changes: object) -> BootRecord:
    check = CheckResult("B1", FUSE, result, "it works", f"seen as {result}", 0.1)
    record = dataclasses.replace(sample_run.boot(variant, BootKind.CHECK), checks=(check,))
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]


def _timed(variant: str, block: int, *values: float, **changes: object) -> BootRecord:
    samples = tuple(Sample("fault", FUSE, i, v, False, False) for i, v in enumerate(values))
    record = dataclasses.replace(sample_run.boot(variant, BootKind.BENCH, block), samples=samples)
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]


def _check(boots: Sequence[BootRecord], red: str = "") -> CheckComparison:
    run = _run(boots, checks=(dataclasses.replace(B1, red=red),))
    (check,) = compare.compare(run, BASE, CONTROL).checks
    return check


def _metric(run: StoredRun) -> MetricComparison:
    (metric,) = compare.compare(run, BASE, CONTROL).metrics
    return metric


def _five(shift: float) -> list[BootRecord]:
    """Five blocks: base about 2000 ns, control that much more."""
    wobble = (0.0, 0.2, -0.1, 0.1, -0.2)
    return [_timed(BASE, b, 2000 + w) for b, w in enumerate(wobble)] + [
        _timed(CONTROL, b, (2000 - w) * (1 + shift)) for b, w in enumerate(wobble)
    ]


def _note(comparison: Comparison, part: str) -> bool:
    return any(part in note for note in comparison.notes)


# ---------------------------------------------------------------- checks


@pytest.mark.parametrize(
    ("before", "after", "word", "regression"),
    [
        (Outcome.PASSED, Outcome.PASSED, "same", False),
        (Outcome.PASSED, Outcome.UNSUPPORTED, "gone", True),
        (Outcome.PASSED, Outcome.FAILED, "regression", True),
        (Outcome.PASSED, Outcome.CRASHED, "regression", True),
        (Outcome.PASSED, Outcome.SKIPPED, "not compared", False),
        (Outcome.UNSUPPORTED, Outcome.PASSED, "new", False),
        (Outcome.FAILED, Outcome.PASSED, "fixed", False),
        (Outcome.FAILED, Outcome.FAILED, "same", False),
        (Outcome.UNSUPPORTED, Outcome.FAILED, "changed", False),
    ],
)
def test_what_a_pair_of_outcomes_means(
    before: Outcome, after: Outcome, word: str, regression: bool
) -> None:
    check = _check([_checked(BASE, before), _checked(CONTROL, after)])
    assert (compare.change_word(check), check.regression) == (word, regression)


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        (Outcome.PASSED, Outcome.FAILED, "known failure"),
        (Outcome.UNSUPPORTED, Outcome.FAILED, "known failure"),
        (Outcome.FAILED, Outcome.FAILED, "same"),
        (Outcome.FAILED, Outcome.PASSED, "fixed"),
        # That it fails is known, not that it takes the kernel with it.
        (Outcome.PASSED, Outcome.CRASHED, "regression"),
    ],
)
def test_what_is_known_to_fail_on_the_candidate_is_no_regression(
    before: Outcome, after: Outcome, word: str
) -> None:
    check = _check([_checked(BASE, before), _checked(CONTROL, after)], red=CONTROL)
    assert compare.change_word(check) == word
    assert check.regression == (word == "regression")


def test_a_check_that_no_boot_ran_is_not_run_and_no_regression() -> None:
    check = _check([_checked(BASE, Outcome.PASSED)])
    assert check.candidate is not None
    assert (check.candidate.outcome, check.candidate.seen) == (Outcome.NOT_RUN, "no check boot")
    assert not check.regression


def test_a_lost_instrument_is_not_the_kernels_fault_but_a_dead_kernel_is() -> None:
    base = _checked(BASE, Outcome.PASSED)
    ends: dict[str, object] = {"reason": "why", "checks": ()}
    lost = _check([base, _checked(CONTROL, Outcome.PASSED, outcome=Outcome.LOST, **ends)])
    assert lost.candidate is not None
    assert lost.candidate.seen == "the boot ended as lost (why)"
    assert not lost.regression
    dead = _check([base, _checked(CONTROL, Outcome.PASSED, outcome=Outcome.CRASHED, **ends)])
    assert dead.candidate is not None
    assert (dead.candidate.outcome, dead.regression) == (Outcome.NOT_RUN, True)


def test_the_attempt_after_a_lost_one_counts() -> None:
    lost = _checked(CONTROL, Outcome.FAILED, outcome=Outcome.LOST)
    again = _checked(CONTROL, Outcome.PASSED, attempt=2)
    check = _check([_checked(BASE, Outcome.PASSED), lost, again])
    assert check.candidate == again.checks[0]
    again = dataclasses.replace(again, outcome=Outcome.LOST)
    twice = _check([_checked(BASE, Outcome.PASSED), lost, again])
    assert twice.candidate is not None
    assert twice.candidate.outcome is Outcome.NOT_RUN


def test_of_several_results_the_worst_counts_and_not_run_gives_way() -> None:
    base = _checked(BASE, Outcome.PASSED)
    tries = [Outcome.NOT_RUN, Outcome.PASSED, Outcome.FAILED, Outcome.UNSUPPORTED]
    boots = [base, *(_checked(CONTROL, o, order=i) for i, o in enumerate(tries))]
    for kept, want in ((5, Outcome.FAILED), (3, Outcome.PASSED), (2, Outcome.NOT_RUN)):
        result = _check(boots[:kept]).candidate
        assert result is not None
        assert result.outcome is want


def test_a_result_without_a_description_is_not_left_out() -> None:
    odd = CheckResult("X9", FUSE, Outcome.FAILED, "", "", 0.0)
    boot = _checked(CONTROL, Outcome.PASSED)
    run = _run([dataclasses.replace(boot, checks=(*boot.checks, odd))])
    ids = {check.id: check for check in compare.compare(run, BASE, CONTROL).checks}
    assert ids["X9"].candidate == odd


# ---------------------------------------------------------------- metrics


def test_instructions_are_half_the_nanoseconds_and_the_change_is_in_them() -> None:
    metric = _metric(_run(_five(0.01)))
    assert metric.verdict is Verdict.SLOWER
    assert metric.unit == "instructions/page"
    assert metric.baseline == pytest.approx(1000, rel=1e-4)
    assert metric.change == pytest.approx(10, rel=1e-2)
    assert metric.ratio == pytest.approx(0.01, rel=1e-2)
    assert metric.blocks == 5


def test_the_larger_of_the_two_margins_counts_and_each_clock_has_its_own() -> None:
    """1,000 instructions: 0.1 % of them is one, and a margin of 20 is 2 %."""
    run = _run(_five(0.01))
    assert _metric(run).margin == FAULT.margin
    wide = dataclasses.replace(FAULT, absolute_margin=20.0)
    metric = _metric(dataclasses.replace(run, metrics=(wide,)))
    assert metric.margin == pytest.approx(0.02, rel=1e-3)
    assert metric.verdict is Verdict.WITHIN_MARGIN
    assert wide.margin_of(Clock.WALL, 1000.0) == FAULT.wall_margin
    slow = dataclasses.replace(FAULT, wall_absolute_margin=50.0)
    assert slow.margin_of(Clock.WALL, 1000.0) == 0.05
    assert slow.margin_of(Clock.WALL, None) == FAULT.wall_margin


def test_wall_times_stay_nanoseconds_and_five_blocks_of_them_are_too_few() -> None:
    boots = [dataclasses.replace(boot, clock=Clock.WALL) for boot in _five(0.1)]
    metric = _metric(_run(boots, clock=Clock.WALL))
    assert (metric.unit, metric.verdict) == ("ns/page", Verdict.INCONCLUSIVE)
    assert metric.baseline == pytest.approx(2000, rel=1e-3)
    assert "needs 8" in metric.reason


def test_warm_up_and_idle_samples_do_not_count() -> None:
    def spoil(boot: BootRecord) -> BootRecord:
        more = (
            Sample("fault", FUSE, 8, 1e9, True, False),
            Sample("fault", FUSE, 9, 1e9, False, True),
        )
        return dataclasses.replace(boot, samples=(*boot.samples, *more))

    assert _metric(_run([spoil(b) for b in _five(0.01)])) == _metric(_run(_five(0.01)))


def test_a_metric_that_always_slept_is_not_measurable() -> None:
    def sleep(boot: BootRecord) -> BootRecord:
        samples = tuple(dataclasses.replace(s, idle=True) for s in boot.samples)
        return dataclasses.replace(boot, samples=samples)

    metric = _metric(_run([sleep(b) for b in _five(0.01)]))
    assert metric.verdict is Verdict.NOT_COMPARABLE
    assert "not measurable: slept" in metric.reason
    assert metric.ratio is None


def test_the_statistic_is_the_metrics_own_under_icount_and_the_median_under_wall() -> None:
    least = dataclasses.replace(FAULT, statistic="minimum")
    boot = _timed(BASE, 0, 10.0, 20.0, 90.0)
    run = _run([boot], metrics=(least,))
    assert levels.arm_level(run, BASE, least).boots == ((0, 5.0),)
    wall = _run([dataclasses.replace(boot, clock=Clock.WALL)], clock=Clock.WALL)
    assert levels.arm_level(wall, BASE, least).boots == ((0, 20.0),)


def test_only_clean_boots_count_and_the_others_are_named() -> None:
    boots = _five(0.01)
    boots[7] = dataclasses.replace(boots[7], outcome=Outcome.SPLAT, reason="WARNING at mm/x.c")
    comparison = compare.compare(_run(boots), BASE, CONTROL)
    assert comparison.metrics[0].blocks == 4
    assert _note(comparison, f"block 2 of {CONTROL} is left out: the boot ended as splat (WARNING")
    assert not _note(comparison, "block 2 of base")


def test_a_block_that_was_never_booted_is_named() -> None:
    comparison = compare.compare(_run(_five(0.01)[:-1]), BASE, CONTROL)
    assert _note(comparison, f"{CONTROL} has no bench boot in block 4 of the 5 planned")


@pytest.mark.parametrize(("absent", "verdict"), [(BASE, Verdict.NEW), (CONTROL, Verdict.GONE)])
def test_a_metric_unsupported_on_one_side_is_new_or_gone(absent: str, verdict: Verdict) -> None:
    why = MetricOutcome("fault", FUSE, Outcome.UNSUPPORTED, "ENODEV")
    boots = [
        dataclasses.replace(b, samples=(), unmeasured=(why,)) if b.variant == absent else b
        for b in _five(0.01)
    ]
    metric = _metric(_run(boots))
    assert (metric.verdict, metric.reason) == (verdict, "unsupported: ENODEV")
    assert [metric.baseline, metric.candidate].count(None) == 1
    assert (metric.change, metric.ratio) == (None, None)


def test_a_metric_without_samples_says_so_and_is_not_called_gone() -> None:
    boots = [dataclasses.replace(b, samples=()) if b.variant == CONTROL else b for b in _five(0.01)]
    metric = _metric(_run(boots))
    assert metric.verdict is Verdict.NOT_COMPARABLE
    assert metric.reason == f"{CONTROL}: no samples"


def _other_cpu(run: StoredRun) -> StoredRun:
    boots = [
        dataclasses.replace(b, argv=(*b.argv, "-cpu", "max")) if b.variant == CONTROL else b
        for b in run.boots
    ]
    return dataclasses.replace(run, boots=tuple(boots))


def _other_config(run: StoredRun) -> StoredRun:
    image = dataclasses.replace(run.images[CONTROL], fragments=("base", "debug"))
    return dataclasses.replace(run, images={**run.images, CONTROL: image})


def _plain_tcg(run: StoredRun) -> StoredRun:
    boots = tuple(dataclasses.replace(b, clock=Clock.TCG) for b in run.boots)
    return dataclasses.replace(run, clock=Clock.TCG, boots=boots)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_other_cpu, "unlike QEMU CPU models: max | max,-erms,-fsrm"),
        (_other_config, "unlike configs: base debug | base guest"),
        (_plain_tcg, "times under TCG without icount"),
    ],
)
def test_unlike_arms_are_not_compared(spoil: Callable[[StoredRun], StoredRun], reason: str) -> None:
    metric = _metric(spoil(_run(_five(0.01))))
    assert metric.verdict is Verdict.NOT_COMPARABLE
    assert reason in metric.reason
    assert (metric.change, metric.ratio, metric.p_adjusted) == (None, None, None)
    assert metric.baseline is not None


def test_equal_kernels_are_said_to_be_equal() -> None:
    run = _run(_five(0.01))
    same = dataclasses.replace(run.images[CONTROL], code_sha256=run.images[BASE].code_sha256)
    comparison = compare.compare(
        dataclasses.replace(run, images={**run.images, CONTROL: same}), BASE, CONTROL
    )
    assert comparison.equal_kernels
    assert comparison.metrics[0].verdict is Verdict.EQUIVALENT
    assert "equal kernels" in comparison.metrics[0].reason


def test_equal_kernels_with_other_options_are_not_equal() -> None:
    run = _run(_five(0.01))
    other = f"{BASE} + cmdline:transparent_hugepage=never"
    images = {BASE: run.images[BASE], other: run.images[BASE]}
    assert not compare.equal_kernels(dataclasses.replace(run, images=images), BASE, other)
    assert compare.equal_kernels(dataclasses.replace(run, images=images), other, other)


def test_an_arm_that_is_not_in_the_run_is_refused() -> None:
    with pytest.raises(UsageError, match="no arm v9") as error:
        compare.compare(sample_run.sample_run(), BASE, "v9")
    assert CONTROL in error.value.hint


# ---------------------------------------------------------------- much of it


@pytest.mark.parametrize("clock", [Clock.ICOUNT, Clock.WALL])
def test_ten_thousand_samples_are_compared_in_less_than_a_second(clock: Clock) -> None:
    """Of the processor's time: a busy host is no slower lab."""
    chance = random.Random(8)
    metrics = [
        dataclasses.replace(FAULT, id=f"m{number}", margin=0.03, primary=number < 6)
        for number in range(10)
    ]
    boots = [
        dataclasses.replace(
            sample_run.boot(arm, BootKind.BENCH, block),
            clock=clock,
            samples=tuple(
                Sample(metric.id, FUSE, i, level * (1 + chance.gauss(0, 0.01)), False, False)
                for metric in metrics
                for i in range(25)
            ),
        )
        for block in range(20)
        for arm, level in ((BASE, 2000.0), (CONTROL, 2200.0))
    ]
    run = _run(boots, metrics=tuple(metrics), clock=clock)
    assert sum(len(boot.samples) for boot in boots) == 10_000
    compare.compare(sample_run.sample_run(), BASE, CONTROL)  # loads scipy
    begun = time.process_time()
    comparison = compare.compare(run, BASE, CONTROL)
    assert time.process_time() - begun < 1
    assert {metric.verdict for metric in comparison.metrics} == {Verdict.SLOWER}
    assert {metric.blocks for metric in comparison.metrics} == {20}


# ---------------------------------------------------------------- a whole run


def test_a_whole_run() -> None:
    (comparison,) = compare.compare_all(sample_run.sample_run())
    words = [compare.change_word(c) for c in comparison.checks if c.info.feature == FUSE]
    assert (words.count("gone"), words.count("regression"), words.count("same")) == (6, 1, 1)
    verdicts = {m.metric.id: m.verdict for m in comparison.metrics}
    assert verdicts["dirty-msync"] is Verdict.GONE
    assert verdicts["dax-first"] is Verdict.FASTER
    assert verdicts["write-1k"] is Verdict.INCONCLUSIVE
    assert verdicts["dax-sync"] is Verdict.NOT_COMPARABLE
    assert not comparison.equal_kernels
    # The lost boot of block 2 was tried again, so its block is whole.
    assert {m.blocks for m in comparison.metrics if m.ratio is not None} == {5}
    assert not _note(comparison, "of base is left out")
    assert _note(comparison, "block 2 of base: attempt 1 was lost (SSH never came")


def test_the_table_of_arms_has_the_baseline_first_and_a_reason_for_every_gap() -> None:
    rows = {row.metric.id: row for row in levels.arms_table(sample_run.sample_run())}
    base, control = rows["dirty-msync"].levels
    assert (base.variant, len(base.boots)) == (BASE, 5)
    assert base.level == pytest.approx(39192, rel=1e-3)
    assert (control.level, control.reason) == (None, "unsupported: mmap gives ENODEV")
    empty = levels.arms_table(sample_run.before_the_first_boot())
    assert {level.reason for row in empty for level in row.levels} == {"no bench boot"}
    assert PMEM in {row.metric.feature for row in empty}
