# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``make prove`` showed: its records, kept as JSON, and the pages that say them in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from patchlab.errors import UsageError
from patchlab.record import CheckInfo, Outcome

_LINE = 600  # characters of what a check saw; the JSON has all of it

# ---------------------------------------------------------------- seen-red


class Shown(msgspec.Struct, frozen=True):
    """A case and what came of it."""

    key: str
    check: str
    variant: str
    options: tuple[str, ...]
    image: str  # its key
    expected: Outcome
    outcome: Outcome
    seen: str
    boot: Outcome
    reason: str
    commit: str
    when: str

    @property
    def held(self) -> bool:
        """The check did as claimed, and the kernel had nothing else to complain of.

        On a debug kernel a check may fail just because the kernel complained.
        """
        heard = "config:debug" in self.variant and self.expected is Outcome.FAILED
        fine = (Outcome.PASSED, Outcome.SPLAT) if heard else (Outcome.PASSED,)
        return self.outcome is self.expected and self.boot in fine

    @property
    def place(self) -> str:
        return " ".join((self.variant, *self.options))


def problem(shown: Shown) -> str:
    """What is wrong with a case that did not hold, in one line."""
    if shown.outcome is shown.expected:
        said = f"{shown.boot} boot: {shown.reason}"
    else:
        said = f"{shown.outcome}, not {shown.expected}: {shown.seen}"
    return f"{shown.check} on {shown.place}: {line(said)}"


def kept(before: Iterable[Shown], keys: Iterable[str]) -> dict[str, Shown]:
    """Those of ``before`` that need not be shown again: still wanted, and they held."""
    held = {one.key: one for one in before if one.held}
    return {key: held[key] for key in keys if key in held}


def earlier(
    before: Iterable[Shown], cases: Mapping[str, tuple[str, str, tuple[str, ...], str]]
) -> dict[str, Shown]:
    """Key -> what was last shown of the same check, variant, options and expected outcome.

    With an image or code of the agent that is not today's: due again, and better than nothing.
    """
    last = {(one.check, one.variant, one.options, str(one.expected)): one for one in before}
    return {key: last[case] for key, case in cases.items() if case in last}


def unproved(shown: Sequence[Shown], checks: Sequence[CheckInfo]) -> list[str]:
    """Ids of the checks that were not seen red, and green elsewhere, as claimed."""
    green = {one.check for one in shown if one.expected is Outcome.PASSED}
    red = {one.check for one in shown if one.expected is not Outcome.PASSED}
    proved = (red & green) - {one.check for one in shown if not one.held}
    return [check.id for check in checks if check.id not in proved]


def seen_red_page(
    shown: Sequence[Shown], checks: Sequence[CheckInfo], keys: Collection[str]
) -> str:
    """The page of all cases. Its dates and commits are those of the boots.

    What has none of today's ``keys`` was shown with earlier code, and is marked so.
    """
    red = [one for one in shown if one.expected is not Outcome.PASSED]
    green = {one.check: one for one in shown if one.expected is Outcome.PASSED}
    missing = unproved(shown, checks)
    lines = [
        "# Every check, seen red",
        "",
        "A check that has never failed proves little. Each one was run on an image where it has",
        "to fail, and in the same way on one where it passes. On a control the feature is taken",
        "out, and `base` may never have had it; there a check says unsupported, not failed.",
        "",
        f"{len(checks) - len(missing)} of {len(checks)} checks proved, by {len(shown)} cases, "
        f"{len(red)} of them red. {_dated(shown)}",
        *(["", f"Unproved: {', '.join(missing)}."] if missing else []),
        *_due(shown, checks, keys),
        "",
        "| check | image | kernel option | outcome there | where it passes |",
        "|---|---|---|---|---|",
    ]
    for one in red:
        options = " ".join(f"`{option}`" for option in one.options) or "none"
        there = f"{one.outcome}{'' if one.held else ' (!)'}"
        other = green.get(one.check)
        passed = f"{other.outcome} on `{other.variant}`" if other else "not shown yet"
        there += "" if one.key in keys else " (earlier code)"
        lines.append(f"| {one.check} | `{one.variant}` | {options} | {there} | {passed} |")
    for check in checks:
        lines += _section(check, [one for one in shown if one.check == check.id])
    return "\n".join(lines) + "\n"


def _due(shown: Sequence[Shown], checks: Sequence[CheckInfo], keys: Collection[str]) -> list[str]:
    today = [one for one in shown if one.key in keys]
    if len(today) == len(shown):
        return []
    # Of those that are due again nothing is known today.
    due = {one.check for one in shown if one.key not in keys}
    proved = len(checks) - len({*unproved(today, checks), *due})
    return [
        "",
        f"{len(shown) - len(today)} of the cases were shown with an image or code of the agent "
        "that has changed since (the table marks them); `make prove` shows them again. With "
        f"today's, {proved} of {len(checks)} checks are proved.",
    ]


def _section(check: CheckInfo, shown: Sequence[Shown]) -> list[str]:
    lines = ["", f"## {check.id}", "", f"{check.sentence}.", ""]
    for one in shown:
        lines += [
            f"- `{one.place}`, image `{one.image}`: **{one.outcome}**, boot {one.boot}",
            f"  ({one.when}, `{one.commit}`)  ",
            f"  `{line(one.seen)}`",
            *([] if one.held else [f"  **not as claimed:** `{line(problem(one))}`"]),
        ]
    return lines if shown else [*lines, "No image is named on which it has to fail."]


def _dated(shown: Sequence[Shown | Boot | Prefix | Argued | Kill]) -> str:
    """When, and at which commits of the lab."""
    if not shown:
        return ""
    days = sorted({one.when[:10] for one in shown})
    commits = ", ".join(f"`{commit}`" for commit in dict.fromkeys(one.commit for one in shown))
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"Shown {span}, by the lab at {commits}."


def line(text: str) -> str:
    """One line without what would end inline code: a guest wrote it."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    flat = flat.replace("`", "'").replace("|", "¦")
    return flat if len(flat) <= _LINE else flat[:_LINE] + " …"


# ---------------------------------------------------------------- clean-build


class CleanBuild(msgspec.Struct, frozen=True):
    """One variant built twice: in a copy of its built base, and from nothing."""

    key: str  # the image's
    variant: str
    incremental: str  # SHA-256 of bzImage
    clean: str
    incremental_steps: int
    clean_steps: int
    clean_seconds: float
    commit: str
    when: str


def clean_build_page(done: CleanBuild) -> str:
    same = "the same" if done.clean == done.incremental else "**other**"
    return f"""\
# A variant built from its base, and the same one built from nothing

`{done.variant}` (image `{done.key}`) was built twice. In a copy of the built base, make took
{done.incremental_steps} steps; in a clean tree with the same patches it took {done.clean_steps},
in {done.clean_seconds:.0f} s. The second bzImage has {same} bytes.

| build | SHA-256 of bzImage |
|---|---|
| from the built base | `{done.incremental}` |
| from clean source | `{done.clean}` |

Shown {done.when} at commit `{done.commit}`.
"""


# ---------------------------------------------------------------- boots


class Boot(msgspec.Struct, frozen=True):
    """One of the boots in a row."""

    key: str
    number: int  # from 1; also its seed
    outcome: Outcome
    reason: str
    checks: Mapping[str, int]  # outcome -> how many
    ready_seconds: float
    seconds: float
    commit: str
    when: str


def row(made: Iterable[Boot], key: str) -> list[Boot]:
    """What of ``made`` the row can go on from: nothing once a boot in it was not good."""
    same = [one for one in made if one.key == key]
    return same if all(good(one) for one in same) else []


def good(boot: Boot) -> bool:
    return boot.outcome is Outcome.PASSED and set(boot.checks) <= {Outcome.PASSED}


def boots_page(made: Sequence[Boot], image: str) -> str:
    fine = sum(good(one) for one in made)
    lost = sum(one.outcome is Outcome.LOST for one in made)
    lines = [
        "# The base, booted again and again",
        "",
        f"{len(made)} check boots of `base` (image `{image}`) in a row, each with every check: "
        f"{fine} good, {lost} lost. {_dated(made)}",
        "",
        "| boot | outcome | checks | agent after | whole boot | when |",
        "|---|---|---|---|---|---|",
    ]
    for one in made:
        checks = ", ".join(f"{count} {outcome}" for outcome, count in one.checks.items())
        lines.append(
            f"| {one.number} | {one.outcome} | {checks} | {one.ready_seconds:.1f} s "
            f"| {one.seconds:.1f} s | {one.when} |"
        )
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- patches


Place = tuple[str, str, str, int]  # series, revision, base, and how many of its patches


class Prefix(msgspec.Struct, frozen=True):
    """The first ``patch`` patches of a revision on one base, built and booted."""

    key: str
    series: str
    revision: str
    base: str
    patch: int  # from 1
    subject: str
    image: str
    outcome: Outcome
    reason: str
    commit: str
    when: str

    @property
    def place(self) -> Place:
        return self.series, self.revision, self.base, self.patch

    @property
    def held(self) -> bool:
        return self.outcome is Outcome.PASSED


def patches_page(shown: Sequence[Prefix], keys: Mapping[Place, str]) -> str:
    """The page of all prefixes. ``keys`` has today's, of each that is to be shown."""
    made = {one.place: one for one in shown}
    old = sum(one.key != keys[one.place] for one in shown)
    missing = Counter(f"{series}@{name} on {base}" for series, name, base, _ in keys.keys() - made)
    lines = [
        "# Each patch builds and boots",
        "",
        "The prefixes of every shipped revision are built, with warnings as make gives them, and",
        "booted until the agent answers; the log has to be clean. "
        f"{len(shown)} of {len(keys)} kernels shown, {sum(one.held for one in shown)} of them good"
        f"{f', {old} of them earlier, with another kernel or machine' if old else ''}. "
        f"{_dated(shown)}",
        *([""] if missing else []),
        *(f"- **not shown:** {name} ({count})" for name, count in sorted(missing.items())),
        "",
        "| series | base | patch | subject | image | boot |",
        "|---|---|---|---|---|---|",
    ]
    for one in shown:
        said = one.outcome if one.held else f"**{one.outcome}**: `{line(one.reason)}`"
        said += "" if one.key == keys[one.place] else " (earlier)"
        lines.append(
            f"| {one.series}@{one.revision} | {one.base} | {one.patch} | `{line(one.subject)}` "
            f"| `{one.image}` | {said} |"
        )
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- debug


class Argued(msgspec.Struct, frozen=True):
    """All checks of a feature in one boot of a debug kernel."""

    key: str
    variant: str
    image: str
    outcome: Outcome
    reason: str
    checks: Mapping[str, tuple[Outcome, float, str]]  # outcome, seconds in the guest, seen
    findings: tuple[str, ...]
    seconds: float
    commit: str
    when: str
    known: tuple[str, ...] = ()  # checks that are claimed to fail on this revision

    @property
    def bad(self) -> list[str]:
        """The checks that went wrong and should not have."""
        fine = (Outcome.PASSED, Outcome.UNSUPPORTED)
        return [
            f"{name} {outcome}"
            for name, (outcome, *_) in self.checks.items()
            if outcome not in fine and not (outcome is Outcome.FAILED and name in self.known)
        ]

    @property
    def held(self) -> bool:
        return self.outcome is Outcome.PASSED and not self.bad


def argument(shown: Argued) -> str:
    """What is wrong with a boot that did not hold, in one line."""
    bad = ", ".join(shown.bad)
    return f"{shown.variant}: {shown.outcome} boot: {line(shown.reason)} {bad}".rstrip()


def debug_page(shown: Sequence[Argued]) -> str:
    lines = [
        "# Every check on a debug kernel",
        "",
        "KASAN, lockdep, DEBUG_ATOMIC_SLEEP, kmemleak, the hung-task detector and fault injection",
        "(`kernels/config/debug.config`), two vCPUs, every check of the feature in one boot. The",
        "boot is good when no check fails but those that name the revision as one that they fail",
        f"on, and the kernel's log is clean. {_dated(shown)}",
    ]
    for one in shown:
        found = "; ".join(line(title) for title in one.findings) or "none"
        lines += [
            "",
            f"## {one.variant}",
            "",
            f"Boot **{one.outcome}** after {one.seconds:.0f} s, image `{one.image}`. "
            f"Reports in the log: {found}.",
            "",
            "| check | outcome | seconds | seen |",
            "|---|---|---|---|",
        ]
        for name, (outcome, seconds, seen) in one.checks.items():
            lines.append(f"| {name} | {outcome} | {seconds:.1f} | `{line(seen)}` |")
    return "\n".join(lines).replace("``", "") + "\n"


# ---------------------------------------------------------------- kills


class Kill(msgspec.Struct, frozen=True):
    """One start of a run that was killed before; the last one goes to the end."""

    key: str
    wanted: str  # the stage that the kill was meant for; "" for the last start
    stage: str  # the one that it met
    seconds: float  # from the start to the kill
    boots: int  # that are stored afterwards
    left: int  # half-done things that it left for the next start
    found: tuple[str, ...]  # what it said of those before it
    problems: tuple[str, ...]
    commit: str
    when: str


def kills_page(shown: Sequence[Kill]) -> str:
    """One row a kill. Moments come from one seed, so the same ones are met again."""
    *kills, last = shown
    wrong = sum(len(one.problems) for one in shown)
    lines = [
        "# A run that was killed again and again",
        "",
        f"`runner.py run kills --resume` was ended by kill -9 {len(kills)} times, at random",
        "moments of each of its stages, and started again. After each, no process and no mount",
        "was left, all that had its final name in the cache was whole, the results file was sound,",
        "and every boot that had ended was there, once. The last start went to the end: every",
        f"boot of the schedule, once. Not so in {wrong} places. {_dated(shown)}",
        "",
        "| kill | stage | after | boots stored | half-done left | what that start had found |",
        "|---|---|---|---|---|---|",
    ]
    for number, one in enumerate(kills, start=1):
        lines.append(f"| {number} | {one.stage} | {_kill_row(one)}")
    lines.append(f"| none | to the end | {_kill_row(last)}")
    for number, one in enumerate(shown, start=1):
        lines += [f"\n**Start {number}:** `{line(problem)}`" for problem in one.problems]
    return "\n".join(lines) + "\n"


def _kill_row(one: Kill) -> str:
    found = "; ".join(line(text) for text in one.found) or "nothing"
    return f"{one.seconds:.1f} s | {one.boots} | {one.left} | {found} |"


# ---------------------------------------------------------------- files

_Kind = TypeVar("_Kind")


def load(file: Path, kind: type[_Kind]) -> list[_Kind]:
    """What a step kept; nothing before its first time. Raises UsageError for another form."""
    if not file.is_file():
        return []
    try:
        document = msgspec.json.decode(file.read_bytes())
        return msgspec.convert(document["shown"], list[kind])  # type: ignore[valid-type]
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise UsageError(f"{file}: {error}", hint="remove it: the step shows all again") from error


def store(file: Path, step: str, shown: Sequence[Any]) -> None:
    """Keep all of ``shown``: a step calls it after each boot, and goes on from it."""
    document = {"format": f"patchlab-{step}/1", "shown": shown}
    write(file, msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")


def write(file: Path, text: str) -> None:
    """The whole text or the old one, also when the lab is killed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f".{file.name}.new")
    half.write_text(text, encoding="utf-8")
    half.replace(file)
