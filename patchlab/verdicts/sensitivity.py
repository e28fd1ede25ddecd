# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether another CPU model tells the same story. Pure.

Under icount a CPU model decides which instructions a path takes: with ERMS a page copy is one
REP instruction that TCG counts turn by turn, without it a loop. A change that is up under one
model and down under another is a property of the models, not of the patch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from patchlab.model import cpu_of, under
from patchlab.record import StoredRun
from patchlab.verdict import MetricComparison, Verdict
from patchlab.verdicts import levels

Metrics = Sequence[MetricComparison]
_CHANGES = (Verdict.FASTER, Verdict.SLOWER, Verdict.WITHIN_MARGIN)


def pairs(run: StoredRun, baseline: str, candidate: str) -> dict[str, tuple[str, str]]:
    """Model -> the names of both arms' boots under it; none for an arm with a model of its own."""
    if cpu_of(baseline) or cpu_of(candidate):
        return {}
    return {model: (under(baseline, model), under(candidate, model)) for model in run.sensitivity}


def weighed(own: Metrics, others: Mapping[str, Metrics]) -> tuple[MetricComparison, ...]:
    """``own`` without a verdict where one of the ``others`` (model -> metrics) contradicts it."""
    return tuple(
        _weighed(one, {model: metrics[place] for model, metrics in others.items()})
        for place, one in enumerate(own)
    )


def _weighed(own: MetricComparison, others: Mapping[str, MetricComparison]) -> MetricComparison:
    against = [model for model, other in others.items() if disagree(own, other)]
    if not against:
        return own
    effects = [f"{_effect(own)} with the lab's own"]
    effects += [f"{_effect(others[model])} with {model}" for model in against]
    reason = f"the CPU models disagree: {', '.join(effects)}"
    return replace(
        own,
        verdict=Verdict.NOT_COMPARABLE,
        reason=reason,
        change=None,
        ratio=None,
        low=None,
        high=None,
        p=None,
        p_adjusted=None,
    )


def disagree(one: MetricComparison, other: MetricComparison) -> bool:
    """Both are changes, one up and one down."""
    if one.ratio is None or other.ratio is None:
        return False
    changes = one.verdict in _CHANGES and other.verdict in _CHANGES
    return changes and (one.ratio < 0) is not (other.ratio < 0)


def _effect(metric: MetricComparison) -> str:
    assert metric.ratio is not None
    return f"{100 * metric.ratio:+.2g} % ({metric.verdict})"


def notes(
    run: StoredRun, arms: Mapping[str, tuple[str, str]], own: Metrics, others: Mapping[str, Metrics]
) -> Iterable[str]:
    """One line a model: how many metrics got which verdict, and which changed their sign."""
    for model, metrics in others.items():
        boots = levels.bench_boots(run, arms[model][0]).values()
        qemu = next((levels.cpu_model(boot.argv) for boot in boots), "no boot")
        counted = Counter(metric.verdict.value for metric in metrics).most_common()
        verdicts = ", ".join(f"{count} {word}" for word, count in counted)
        turned = [a.metric.id for a, b in zip(own, metrics, strict=True) if disagree(a, b)]
        signs = f"the other sign: {', '.join(turned)}" if turned else "no change has another sign"
        yield f"with the CPU model {model} ({qemu}): {verdicts}; {signs}"
