# SPDX-License-Identifier: GPL-2.0-or-later
"""Arms that were also booted with another CPU model: compared under it, and weighed."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest

from patchlab.model import bench_arms, under
from patchlab.record import BootKind, BootRecord, Sample, StoredRun
from patchlab.report import html, text
from patchlab.runs import resume
from patchlab.store.results import Results
from patchlab.verdict import Comparison, Verdict
from patchlab.verdicts import compare
from tests.report import sample_run
from tests.report.sample_run import BASE, CONTROL, FUSE
from tests.store.test_results import save

ERMS = "erms"
FAULT = sample_run.metric_info("fault", FUSE, "a fault", "page", True)
COPY = sample_run.metric_info("copy", FUSE, "a copy", "page", True)


def timed(arm: str, block: int, cpu: str, **levels: float) -> BootRecord:
    samples = tuple(Sample(name, FUSE, 0, value, False, False) for name, value in levels.items())
    boot = sample_run.boot(arm, BootKind.BENCH, block)
    return dataclasses.replace(boot, samples=samples, argv=(*boot.argv, "-cpu", cpu))


def run_of(own: float, other: float, blocks: int = 5) -> StoredRun:
    """The copy changes by ``own`` with the lab's model and by ``other`` with erms."""
    chance = random.Random(6)
    boots = []
    for block in range(blocks):
        for model, cpu, change in (("", "max,-erms", own), (ERMS, "max", other)):
            for arm in (BASE, CONTROL):
                name = under(arm, model) if model else arm
                copy = 2000 * (1 + change * (arm == CONTROL)) * (1 + chance.gauss(0, 2e-4))
                fault = 900 * (1 + chance.gauss(0, 2e-4))
                boots.append(timed(name, block, cpu, fault=fault, copy=copy))
    return dataclasses.replace(
        sample_run.sample_run(),
        boots=tuple(boots),
        checks=(),
        metrics=(FAULT, COPY),
        sensitivity=(ERMS,),
        kinds=(BootKind.BENCH,),
    )


def compared(run: StoredRun) -> Comparison:
    (comparison,) = compare.compare_all(run)
    return comparison


def test_models_that_disagree_in_sign_give_no_verdict_and_both_effects() -> None:
    comparison = compared(run_of(-0.01, 0.02))
    fault, copy = comparison.metrics
    assert copy.verdict is Verdict.NOT_COMPARABLE
    assert copy.reason == (
        "the CPU models disagree: -1 % (faster) with the lab's own, +2 % (slower) with erms"
    )
    assert (copy.change, copy.ratio, copy.p_adjusted) == (None, None, None)
    assert fault.verdict is Verdict.EQUIVALENT
    (note,) = [one for one in comparison.notes if ERMS in one]
    assert note == ("with the CPU model erms (max): 1 equivalent, 1 slower; the other sign: copy")


@pytest.mark.parametrize("other", [0.03, 0.0, 0.002])
def test_models_that_differ_in_size_only_keep_the_verdict(other: float) -> None:
    comparison = compared(run_of(0.01, other))
    assert comparison.metrics[1].verdict is Verdict.SLOWER
    assert comparison.metrics[1].ratio == pytest.approx(0.01, rel=0.05)
    assert any("no change has another sign" in note for note in comparison.notes)


def test_a_sign_without_a_verdict_contradicts_nothing() -> None:
    assert compared(run_of(0.01, -0.0001)).metrics[1].verdict is Verdict.SLOWER


def test_the_other_model_is_no_arm_of_its_own() -> None:
    run = run_of(0.01, 0.01)
    assert [c.candidate for c in compare.compare_all(run)] == [CONTROL]
    assert {m.blocks for m in compared(run).metrics} == {5}


def test_an_arm_with_a_model_of_its_own_is_not_compared_with_one_without() -> None:
    run = run_of(0.01, 0.01)
    arms = (BASE, under(BASE, ERMS))
    comparison = compare.compare(dataclasses.replace(run, arms=arms), *arms)
    assert {m.verdict for m in comparison.metrics} == {Verdict.NOT_COMPARABLE}
    assert "unlike QEMU CPU models: max | max,-erms" in comparison.metrics[0].reason


def test_a_boot_that_the_other_model_lacks_is_named() -> None:
    run = run_of(0.01, 0.01)
    less = dataclasses.replace(run, boots=run.boots[:-1], finished="")
    name = under(CONTROL, ERMS)
    assert resume.missing(less) == ((name, BootKind.BENCH, 4),)
    assert resume.planned(less) == 20
    assert f"{name} has no bench boot in block 4 of the 5 planned" in compared(less).notes


def test_the_boots_of_the_models_keep_apart_in_folders_and_names() -> None:
    assert bench_arms(("a", "b + cpu:x"), ("x", "y")) == (
        *("a", "b + cpu:x", "a + cpu:x", "a + cpu:y"),
    )
    run = run_of(0.01, 0.01)
    orders = {name: order for order, name in enumerate(bench_arms(run.arms, run.sensitivity))}
    boots = tuple(dataclasses.replace(b, order=orders[b.variant]) for b in run.boots)
    assert len(resume.folders(dataclasses.replace(run, boots=boots))) == len(boots)


def test_a_stored_run_knows_its_models_and_reports_show_what_they_say(tmp_path: Path) -> None:
    with Results.open(tmp_path / "r.db") as results:
        run_id = save(results, run_of(-0.01, 0.02))
        stored = results.load_run(run_id)
        (line,) = results.runs()
    assert (stored.sensitivity, line.planned) == ((ERMS,), 20)
    found = compare.compare_all(stored)
    for said in (text.render(stored, found, width=300), html.render(stored, found)):
        assert "the CPU models disagree" in said
        assert "with the CPU model erms (max)" in said
