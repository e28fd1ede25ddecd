# SPDX-License-Identifier: GPL-2.0-or-later
"""``statistics``: how often the lab's verdicts err, over simulated runs. A minute or two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from patchlab.model import Clock
from patchlab.store import content
from patchlab.verdicts import stats
from tests.proving import evidence, simulation
from tests.proving.desk import RECIPE, Proving, now
from tests.proving.simulation import Errors, Noise, Rate

_RUNS = 1000
_SEED = 2008
_WALL, _ICOUNT = (Clock.WALL, 0.03), (Clock.ICOUNT, 0.001)  # clock and default margin
_LOOKS = (10, 20, 30)
# Pocock 1977, Biometrika 64:191: three equally spaced looks, 5 % in all.
_POCOCK = 0.0221


class Line(msgspec.Struct, frozen=True):
    """One simulated kind of run. Rates are (hits, of)."""

    key: str
    family: str
    what: str
    clock: str
    blocks: int
    change: float
    unadjusted: tuple[int, int]
    alarms: tuple[int, int]  # metrics called faster or slower
    runs: tuple[int, int]  # runs with at least one
    covered: tuple[int, int] | None
    commit: str
    when: str


@dataclass(frozen=True, slots=True)
class _Kind:
    family: str
    what: str
    noise: Noise
    clock: tuple[Clock, float]
    blocks: int
    change: float = 0.0


def _kinds() -> list[_Kind]:
    plain = simulation.plain
    quiet = [
        _Kind("nothing changed", f"boot sd {100 * sd:g} %", plain(sd), clock, blocks)
        for clock, sd, blocks in ((_ICOUNT, 0.001, 5), (_WALL, 0.015, 10), (_WALL, 0.015, 20))
    ]
    power = [
        _Kind("a real change", f"boot sd {100 * sd:g} %", plain(sd), clock, blocks, change)
        for clock, sd, blocks, changes in (
            (_ICOUNT, 0.001, 5, (0.001, 0.002, 0.005, 0.01)),
            (_ICOUNT, 0.003, 5, (0.005, 0.01, 0.02)),
            (_WALL, 0.015, 10, (0.02, 0.03, 0.05, 0.1)),
            (_WALL, 0.015, 20, (0.02, 0.03, 0.05, 0.1)),
        )
        for change in changes
    ]
    sd, drift = 0.005, 0.002
    traps = [
        _Kind(
            "traps",
            "drift of 0.2 % a boot, baseline always first",
            simulation.drifting(sd, drift, randomised=False),
            _WALL,
            20,
        ),
        _Kind(
            "traps",
            "the same drift, randomised blocks",
            simulation.drifting(sd, drift, randomised=True),
            _WALL,
            20,
        ),
        _Kind("traps", "two modes, 4 % apart", simulation.bimodal(sd, 0.04), _WALL, 20),
        *(
            _Kind("traps", "one build an arm, 1 % sd", simulation.one_build(0.01, 0.01), _WALL, n)
            for n in (10, 40)
        ),
    ]
    return [*quiet, *power, *traps]


def simulated(proving: Proving) -> list[str]:
    """Every kind of run through the statistics; a false alarm above its promise is wrong."""
    file = proving.evidence / "statistics.json"
    code = b"".join(Path(m.__file__ or "").read_bytes() for m in (stats, simulation))
    before = {line.key: line for line in evidence.load(file, Line)}
    lines: list[Line] = []
    kinds = _kinds()
    with proving.progress.step("simulated runs") as step:
        for done, kind in enumerate(kinds, start=1):
            clock, margin = kind.clock
            key = content.digest(
                *(RECIPE, code, kind.family, kind.what, clock, str(margin), str(_RUNS)),
                *(str(kind.blocks), str(kind.change)),
            )
            lines.append(before.get(key) or _line(key, kind, proving.commit))
            evidence.store(file, "statistics", lines)
            step.advance(done, len(kinds))
    lines += [_peek(name, code, looks, alpha, before, proving) for name, looks, alpha in _PEEKS]
    evidence.store(file, "statistics", lines)
    evidence.write(file.with_suffix(".md"), page(lines))
    return wrong(lines)


_PEEKS: tuple[tuple[str, tuple[int, ...], float], ...] = (
    ("a look after every block from 5 to 30, p < .05", tuple(range(5, 31)), 0.05),
    ("looks after 10, 20, 30 blocks, p < .05", _LOOKS, 0.05),
    ("looks after 10, 20, 30 blocks, p < .0221 (Pocock)", _LOOKS, _POCOCK),
)


def _line(key: str, kind: _Kind, commit: str) -> Line:
    clock, margin = kind.clock
    found: Errors = simulation.errors(
        kind.noise,
        clock=clock,
        blocks=kind.blocks,
        margin=margin,
        runs=_RUNS,
        seed=_SEED,
        change=kind.change,
    )
    return Line(
        key=key,
        family=kind.family,
        what=kind.what,
        clock=clock,
        blocks=kind.blocks,
        change=kind.change,
        unadjusted=_pair(found.unadjusted),
        alarms=_pair(found.alarms),
        runs=_pair(found.runs),
        covered=_pair(found.covered),
        commit=commit,
        when=now(),
    )


def _peek(
    what: str,
    code: bytes,
    looks: Sequence[int],
    alpha: float,
    before: dict[str, Line],
    proving: Proving,
) -> Line:
    key = content.digest(RECIPE, code, what)
    if key in before:
        return before[key]
    rate = _pair(simulation.peeking(looks, alpha, spread=0.015, runs=2 * _RUNS, seed=_SEED))
    return Line(
        key=key,
        family="peeking",
        what=what,
        clock=Clock.WALL,
        blocks=max(looks),
        change=0.0,
        unadjusted=rate,
        alarms=rate,
        runs=rate,
        covered=None,
        commit=proving.commit,
        when=now(),
    )


def _pair(rate: Rate) -> tuple[int, int]:
    return rate.hits, rate.of


def wrong(lines: Sequence[Line]) -> list[str]:
    """What breaks a promise of docs/measurement.md."""
    found = []
    for line in lines:
        if line.family == "nothing changed":
            low, high = Rate(*line.unadjusted).interval
            if not (low <= 0.06 and high >= 0.04):
                found.append(f"{line.what}: the unadjusted test alarms in {_rate(line.unadjusted)}")
            if Rate(*line.alarms).share > 0.01:
                found.append(f"{line.what}: the full verdict alarms in {_rate(line.alarms)}")
            if line.covered and not 0.94 <= Rate(*line.covered).share <= 0.96:
                found.append(f"{line.what}: its interval covers {_rate(line.covered)}")
    return found


def _rate(pair: tuple[int, int]) -> str:
    low, high = Rate(*pair).interval
    return f"{100 * Rate(*pair).share:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def page(lines: Sequence[Line]) -> str:
    """The page. Its dates and commits are those of the simulations."""
    dated = f"Simulated {lines[0].when[:10]} at commit `{lines[0].commit}`." if lines else ""
    text = [
        "# How often a verdict errs, simulated",
        "",
        "Runs that never happened, put through the lab's own statistics "
        f"(`patchlab/verdicts/stats.py`): {_RUNS:,} runs a line, {simulation.METRICS} primary "
        "metrics each, one number a boot and "
        f"metric. In brackets 95 % intervals of the share (Clopper and Pearson). {dated}",
        "",
        "*unadjusted*: metrics whose plain t test has p < .05, without margin and adjustment. "
        "*called*: metrics that the full verdict calls faster or slower. *runs*: runs with at "
        "least one such metric. *covered*: metrics whose 95 % interval has the true change in it.",
    ]
    for family in dict.fromkeys(line.family for line in lines):
        text += ["", f"## {family.capitalize()}", "", *_table(family, lines)]
    return "\n".join(text) + "\n"


def _table(family: str, lines: Sequence[Line]) -> list[str]:
    mine = [line for line in lines if line.family == family]
    if family == "peeking":
        rows = [f"| {line.what} | {_rate(line.runs)} |" for line in mine]
        return ["| who looks | false alarms of one metric |", "|---|---|", *rows]
    rows = [
        f"| {line.what} | {line.clock} | {line.blocks} | {100 * line.change:g} % "
        f"| {_rate(line.unadjusted)} | {_rate(line.alarms)} | {_rate(line.runs)} "
        f"| {_rate(line.covered) if line.covered else ''} |"
        for line in mine
    ]
    head = "| run | clock | blocks | change | unadjusted | called | runs | covered |"
    return [head, "|---|---|---|---|---|---|---|---|", *rows]
