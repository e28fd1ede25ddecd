# SPDX-License-Identifier: GPL-2.0-or-later
"""``statistics``: how often the lab's verdicts err, over simulated runs. A minute or two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import msgspec

from patchlab.record import Clock
from patchlab.store import content
from patchlab.verdicts import looks, stats
from tests.proving import evidence, rules, simulation
from tests.proving.desk import RECIPE, Proving, now
from tests.proving.simulation import Errors, Noise, Rate

_RUNS = 1000
_SEED = 2008
_WALL, _ICOUNT = (Clock.WALL, 0.03), (Clock.ICOUNT, 0.001)  # clock and default margin
_MOST_ALARMS, _LEAST_FOUND = 0.01, 0.95  # of runs under icount, at a boot sd of 0.1 %
_MOST_PEEKED = 0.06  # of the unadjusted test with planned looks; it is near 5 %


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


class Share(msgspec.Struct, frozen=True):
    """A cell of the tables of rules and of looks: a share, or a mean number of blocks."""

    key: str
    table: str
    row: str
    column: str
    hits: int
    of: int
    blocks: float
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
    runs: int = _RUNS


def _kinds() -> list[_Kind]:
    plain = simulation.plain
    quiet = [
        _Kind(
            "nothing changed", f"boot sd {100 * sd:g} %", plain(sd), clock, blocks, runs=10 * _RUNS
        )
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
    code = _code(stats, simulation)
    before = {line.key: line for line in evidence.load(file, Line)}
    lines: list[Line] = []
    kinds = _kinds()
    with proving.progress.step("simulated runs") as step:
        for done, kind in enumerate(kinds, start=1):
            clock, margin = kind.clock
            key = content.digest(
                *(RECIPE, code, kind.family, kind.what, clock, str(margin), str(kind.runs)),
                *(str(kind.blocks), str(kind.change)),
            )
            lines.append(before.get(key) or _line(key, kind, proving.commit))
            evidence.store(file, "statistics", lines)
            step.advance(done, len(kinds))
    shares = _shares(proving, file.with_name("statistics-rules.json"))
    evidence.write(file.with_suffix(".md"), page(lines, shares))
    return [*wrong(lines), *wrong_shares(shares)]


def _code(*modules: ModuleType) -> bytes:
    return b"".join(Path(module.__file__ or "").read_bytes() for module in modules)


def _shares(proving: Proving, file: Path) -> list[Share]:
    """The rules that were tried, and looks; from the file while the code is the same."""
    key = content.digest(RECIPE, _code(stats, looks, rules))
    before = evidence.load(file, Share)
    if before and {one.key for one in before} == {key}:
        return before
    commit, when = proving.commit, now()
    with proving.progress.step("rules and looks"):
        found = [
            Share(key, table, row, column, rate.hits, rate.of, blocks, commit, when)
            for table, row, column, rate, blocks in (*_tried(), *_looked())
        ]
    evidence.store(file, "statistics-rules", found)
    return found


_Cell = tuple[str, str, str, Rate, float]


def _tried() -> Iterable[_Cell]:
    for case in rules.CASES:
        for rule, rate in rules.shares(case).items():
            yield "rules", rule, case.title, rate, case.blocks


_LOOKS = ("one metric, unadjusted", "any of six, Holm", "the run calls one")
_REAL = "a real change is called"


def _looked() -> Iterable[_Cell]:
    for plan in rules.plans():
        quiet = rules.looking(plan.at, plan.alpha, plan.quiet)
        for column, rate in zip(_LOOKS, (quiet.one, quiet.any, quiet.ended), strict=True):
            yield "looks", plan.title, column, rate, quiet.blocks
        real = rules.looking(plan.at, plan.alpha, plan.real)
        yield "looks", f"{plan.title}; {plan.real.title}", _REAL, real.ended, real.blocks


def _line(key: str, kind: _Kind, commit: str) -> Line:
    clock, margin = kind.clock
    found: Errors = simulation.errors(
        kind.noise,
        clock=clock,
        blocks=kind.blocks,
        margin=margin,
        runs=kind.runs,
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


def wrong_shares(shares: Sequence[Share]) -> list[str]:
    """What breaks a promise of docs/measurement.md."""
    found = []
    for one in shares:
        share, said = one.hits / one.of, f"{one.row}, {one.column}: {_rate((one.hits, one.of))}"
        chosen = one.row == rules.CHOSEN
        alarms = chosen and one.column == rules.QUIET.title and share > _MOST_ALARMS
        missed = chosen and one.column == rules.FOUND.title and share < _LEAST_FOUND
        planned = one.row.startswith("planned") and one.column == _LOOKS[0]
        if alarms or missed or (planned and share > _MOST_PEEKED):
            found.append(said)
    return found


def page(lines: Sequence[Line], shares: Sequence[Share]) -> str:
    """The page. Its dates and commits are those of the simulations."""
    dated = f"Simulated {lines[0].when[:10]} at commit `{lines[0].commit}`." if lines else ""
    text = [
        "# How often a verdict errs, simulated",
        "",
        "Runs that never happened, put through the lab's own statistics "
        f"(`patchlab/verdicts/stats.py`): {_RUNS:,} runs a line ({10 * _RUNS:,} where nothing "
        f"changed), {simulation.METRICS} primary metrics each, one number a boot and "
        f"metric. In brackets 95 % intervals of the share (Clopper and Pearson). {dated}",
        "",
        "*unadjusted*: metrics whose plain t test has p < .05, without margin and adjustment. "
        "*called*: metrics that the full verdict calls faster or slower. *runs*: runs with at "
        "least one such metric. *covered*: metrics whose 95 % interval has the true change in it.",
    ]
    for family in dict.fromkeys(line.family for line in lines):
        text += ["", f"## {family.capitalize()}", "", *_table(family, lines)]
    text += ["", *_rules_page(shares), "", *_looks_page(shares)]
    return "\n".join(text) + "\n"


def _table(family: str, lines: Sequence[Line]) -> list[str]:
    mine = [line for line in lines if line.family == family]
    rows = [
        f"| {line.what} | {line.clock} | {line.blocks} | {100 * line.change:g} % "
        f"| {_rate(line.unadjusted)} | {_rate(line.alarms)} | {_rate(line.runs)} "
        f"| {_rate(line.covered) if line.covered else ''} |"
        for line in mine
    ]
    head = "| run | clock | blocks | change | unadjusted | called | runs | covered |"
    return [head, "|---|---|---|---|---|---|---|---|", *rows]


def _rules_page(shares: Sequence[Share]) -> Iterable[str]:
    quiet = [case for case in rules.CASES if not case.change]
    real = [case for case in rules.CASES if case.change]
    yield "## When a change may be called"
    yield ""
    yield (
        f"Rules that were tried, {rules.TRIES:,} runs a cell. First runs without a change that "
        "call one of six metrics faster or slower (5 blocks and a margin of 0.1 %, where nothing "
        "else is said); then tries in which the one metric that did change is called (boot sd "
        "0.1 %, where nothing else is said). The lab's rule is in bold."
    )
    yield ""
    yield f"| rule | {' | '.join(case.title for case in (*quiet, *real))} |"
    yield f"|---|{'---|' * len(rules.CASES)}"
    cells = {(one.row, one.column): one for one in shares if one.table == "rules"}
    for rule in dict.fromkeys(row for row, _ in cells):
        name = f"**{rule}**" if rule == rules.CHOSEN else rule
        found = [cells[rule, case.title] for case in (*quiet, *real)]
        yield f"| {name} | {' | '.join(_share(one) for one in found)} |"


def _looks_page(shares: Sequence[Share]) -> Iterable[str]:
    mine = [one for one in shares if one.table == "looks"]
    real = {one.row.partition("; ")[0]: one for one in mine if one.column == _REAL}
    cells = {(one.row, one.column): one for one in mine}
    yield "## Peeking, and planned looks"
    yield ""
    yield (
        "Runs without a change: in which share one metric's plain t test is below the threshold "
        "at any look, in which any of six is after Holm, and in which the run, which ends at the "
        "first look that leaves nothing open, calls one. Then a real change of one metric, and "
        "the blocks that the runs took."
    )
    yield ""
    yield f"| who looks | {' | '.join(_LOOKS)} | {_REAL} | blocks |"
    yield "|---|---|---|---|---|---|"
    for row, one in real.items():
        found = " | ".join(_rate((cells[row, c].hits, cells[row, c].of)) for c in _LOOKS)
        what = one.row.partition("; ")[2]
        yield f"| {row} | {found} | {what}: {_share(one)} | {one.blocks:.1f} |"


def _share(one: Share) -> str:
    share = 100 * one.hits / one.of
    return f"{share:.2f} %" if share < 10 else f"{share:.1f} %"
