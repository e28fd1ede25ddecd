# SPDX-License-Identifier: GPL-2.0-or-later
"""A made-up run of two revisions and a control, with a review ledger and a table of levels."""

from __future__ import annotations

import dataclasses

from patchlab.model import Sampling
from patchlab.record import (
    BootKind,
    BootRecord,
    CheckInfo,
    CheckResult,
    Clock,
    MetricInfo,
    MetricOutcome,
    Outcome,
    Polarity,
    Sample,
    StoredRun,
)
from patchlab.review import Asked, Claim, Demand, RuleResult, Ruling
from tests.report import sample_run

V1, V2, CONTROL = "demo@v1", "demo@v2 + config:debug", "demo@control"
ARMS = ("base", V1, V2, CONTROL)
HOSTILE = "</p><script>alert('patch')</script> [red]no markup[/red] \x1b]0;title\x07"
LEAK = "the server has 3 descriptors, 2 before"

_OUTCOMES = {
    "D1": {V1: (Outcome.PASSED, "mapped"), V2: (Outcome.PASSED, "mapped")},
    "D2": {V1: (Outcome.FAILED, LEAK), V2: (Outcome.PASSED, "none left")},
    "D3": {V1: (Outcome.PASSED, "EMFILE"), V2: (Outcome.UNSUPPORTED, "no descriptor is passed")},
    "D4": {V1: (Outcome.TIMED_OUT, "no end after 60 s"), V2: (Outcome.SKIPPED, "one vCPU")},
}


def demand(id: str, *checks: str, rules: tuple[str, ...] = (), **answered: str) -> Demand:
    asks = f"what {id} asks for"
    return Demand(id, "A Reviewer", "2009-06-23", asks, checks, rules, answered)


ASKED = Asked(
    series="demo",
    title="Demo of a series",
    feature="demo",
    revisions=("v1", "v2", "control"),
    demands=(
        demand("works", "D1"),
        demand("no-leak", "D1", "D2"),
        demand("return-fd", "D3", v1="mmap returns the error that COMMIT carries"),
        demand("killable", "D4"),
        demand("clean", rules=("checkpatch",)),
        demand("argued", "D1", rules=("changelog-argues:vm_ops",)),
        demand("later", "D99"),
        demand("unbound"),
    ),
    claims=(
        Claim("faster", "An Author", "2025-04-14", "20 % more maps", "map-direct", V1, "wall"),
        Claim("shorter", "An Author", "2025", f"shorter {HOSTILE}", "read-direct", V1, "icount"),
        Claim("gone", "An Author", "2025", "10 % more", "nothing", V1, "wall", "fio", "x:y"),
        Claim("other", "An Author", "2025", "10 % more", "map-direct", "demo@v0", "wall"),
        Claim("base", "An Author", "2025", "10 % more", "map-direct", "base", "wall"),
    ),
)
RULES = (
    RuleResult(V1, "demo", "v1", "checkpatch", Ruling.BROKEN, f"0001-x.patch: {HOSTILE}"),
    RuleResult(V2, "demo", "v2", "checkpatch", Ruling.UNDECIDED, "this host has no perl", "get it"),
    RuleResult(V1, "demo", "v1", "changelog-argues:vm_ops", Ruling.BROKEN, "no changelog names it"),
    RuleResult(V2, "demo", "v2", "changelog-argues:vm_ops", Ruling.HOLDS, "vm_ops: the locks …"),
)

# id, operation, subject, unit; level in ns on v1 and v2, or on every arm
_METRICS = (
    ("map-direct", "map and unmap", "", "map"),
    ("map-tmpfs", "map and unmap", "tmpfs", "map"),
    ("read-direct", "read 4 KiB", "", "read"),
    ("read-dio", "read 4 KiB", "DIRECT_IO", "read"),
    ("open-close", "", "", "call"),
)
_OWN = {V1: 80_000.0, V2: 60_000.0}


def review_run() -> StoredRun:
    boots = [_check_boot(arm, order) for order, arm in enumerate(ARMS)]
    boots += [_bench_boot(arm, block) for block in range(3) for arm in ARMS]
    return dataclasses.replace(
        sample_run.sample_run(),
        title="Demo",
        arms=ARMS,
        features=("demo",),
        sampling=Sampling(blocks=3, seed=1, parallel=1, samples=2, warmup=0),
        images={},
        boots=tuple(boots),
        checks=tuple(CheckInfo(id, "demo", f"{id} holds", "review", "") for id in _OUTCOMES),
        metrics=tuple(metric(*one) for one in _METRICS),
        asked=(ASKED,),
        rules=RULES,
    )


def metric(id: str, operation: str, subject: str, unit: str) -> MetricInfo:
    clocks = (Clock.ICOUNT, Clock.WALL)
    return MetricInfo(
        id, "demo", f"times {id}", unit, Polarity.LOWER, clocks, False, 0.01, "median",
        operation=operation, subject=subject,
    )  # fmt: skip


def _check_boot(arm: str, order: int) -> BootRecord:
    nothing = (Outcome.UNSUPPORTED, "mmap: ENODEV")
    results = [
        CheckResult(
            id, "demo", *seen.get(arm, nothing)[:1], "as asked", seen.get(arm, nothing)[1], 0.1
        )
        for id, seen in _OUTCOMES.items()
    ]
    boot = sample_run.boot(arm, BootKind.CHECK, order=order)
    return dataclasses.replace(boot, checks=tuple(results))


def _bench_boot(arm: str, block: int) -> BootRecord:
    samples: list[Sample] = []
    unmeasured: list[MetricOutcome] = []
    for id, _, subject, _ in _METRICS:
        level = 40_000.0 if subject else _OWN.get(arm)
        if level is None or (id == "read-dio" and arm == "base"):
            why = MetricOutcome(id, "demo", Outcome.UNSUPPORTED, "mmap: ENODEV")
            unmeasured.append(why)
            continue
        value = level * (1 + 0.001 * (block - 1))
        samples += [Sample(id, "demo", i, value, False, False) for i in range(2)]
    boot = sample_run.boot(arm, BootKind.BENCH, block)
    return dataclasses.replace(boot, samples=tuple(samples), unmeasured=tuple(unmeasured))
