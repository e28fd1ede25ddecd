# SPDX-License-Identifier: GPL-2.0-or-later
"""Every check fails on the images that its ``red`` names, and passes where it should."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from patchlab import config
from patchlab.building import build
from patchlab.errors import UsageError
from patchlab.guests import command_line
from patchlab.model import Image, Lab, Variant
from patchlab.record import BootRecord, CheckInfo, Outcome
from patchlab.runs import features
from patchlab.store import content
from tests.proving import evidence
from tests.proving.desk import BASE, CONTROL, RECIPE, Proving, agent_code, boot, machine_key, start
from tests.proving.evidence import Shown


@dataclass(frozen=True, slots=True)
class Case:
    """One check on one image, booted with ``options``, and the outcome that it has to have."""

    check: CheckInfo
    variant: str
    options: tuple[str, ...]
    expected: Outcome


def red_cases(check: CheckInfo) -> tuple[Case, ...]:
    """What the ``red`` of a check claims; none for "".

    The form is ``VARIANT [NAME=VALUE…]``, several of them joined by ``; ``. Where the feature is
    not there, on a control and on most bases, its checks find it unsupported; elsewhere they
    fail. Raises UsageError for any other form.
    """
    return tuple(_claim(check, text) for text in check.red.split(";")) if check.red else ()


def _claim(check: CheckInfo, text: str) -> Case:
    words = text.split()
    names = [word for word in words if "=" not in word]
    options = tuple(words[len(names) :])
    if not names or any("=" not in word for word in options):
        raise UsageError(
            f"check {check.id}: red says {check.red!r}",
            hint="say series@revision, then kernel options as NAME=VALUE; several with '; '",
        )
    absent = any(name.endswith(f"@{CONTROL}") for name in names)
    if names == [BASE]:
        absent = check.feature not in _in_tree()
    expected = Outcome.UNSUPPORTED if absent else Outcome.FAILED
    return Case(check, " ".join(names), options, expected)


@functools.cache
def _in_tree() -> frozenset[str]:
    """The features that the base has: checks of theirs pass there."""
    return frozenset(one.feature for one in features.catalogue().checks if one.green == BASE)


def cases(checks: Iterable[CheckInfo]) -> tuple[Case, ...]:
    """Every red case, and for each check that has one the same where it passes."""
    found: list[Case] = []
    for check in checks:
        if red := red_cases(check):
            found += [*red, Case(check, check.green, (), Outcome.PASSED)]
    return tuple(found)


def seen_red(proving: Proving) -> list[str]:
    """Every check on every image that its ``red`` names, and on the one where it passes."""
    file = proving.evidence / "seen-red.json"
    checks = features.catalogue().checks
    wanted = cases(checks)
    variants = {case.variant: _variant(proving, case) for case in wanted}
    images = {n: build.plan_key(v, proving.lab, proving.cache) for n, v in variants.items()}
    keys = {_key(case, images[case.variant], proving.lab): case for case in wanted}
    before = evidence.load(file, Shown)
    shown = evidence.kept(before, keys)
    earlier = evidence.earlier(before, {key: _place(case) for key, case in keys.items()})
    missing = {key: case for key, case in keys.items() if key not in shown}
    proving.progress.note(f"seen-red: {len(shown)} of {len(keys)} cases shown before")
    if proving.only:
        missing = {key: c for key, c in missing.items() if c.check.id in proving.only}
    for variant, options in _places(missing.values()):
        here = {k: c for k, c in missing.items() if (c.variant, c.options) == (variant, options)}
        image = build.build(variants[variant], proving.lab, proving.cache, proving.progress)
        shown |= _show(here, image, proving)
        evidence.store(file, "seen-red", _all(keys, shown, earlier))
    ordered = _all(keys, shown, earlier)
    evidence.store(file, "seen-red", ordered)
    evidence.write(file.with_suffix(".md"), evidence.seen_red_page(ordered, checks, set(keys)))
    return [evidence.problem(one) for one in ordered if not one.held]


def _place(case: Case) -> tuple[str, str, tuple[str, ...], str]:
    return case.check.id, case.variant, case.options, case.expected


def _all(
    keys: Iterable[str], shown: Mapping[str, Shown], earlier: Mapping[str, Shown]
) -> list[Shown]:
    """What was shown of each case: with today's code, or else with earlier code."""
    both = {**earlier, **shown}
    return [both[key] for key in keys if key in both]


def _places(missing: Iterable[Case]) -> list[tuple[str, tuple[str, ...]]]:
    """Image and options of every boot that is to be made; the slow kernels come last."""
    places = dict.fromkeys((case.variant, case.options) for case in missing)
    return sorted(places, key=lambda place: "config:debug" in place[0])


def _variant(proving: Proving, case: Case) -> Variant:
    try:
        return config.find_variant(proving.lab, case.variant)
    except UsageError as error:
        raise UsageError(f"check {case.check.id}: red: {error}", hint=error.hint) from error


def _key(case: Case, image: str, lab: Lab) -> str:
    """Names all that decides what a case shows: no commit, no date."""
    return content.digest(
        *(RECIPE, image, machine_key(lab), agent_code(command_line.GUEST_CODE, case.check.feature)),
        *(case.check.feature, case.check.id, case.variant, case.expected, *case.options),
    )


def _show(cases: Mapping[str, Case], image: Image, proving: Proving) -> dict[str, Shown]:
    """One boot for all cases of one image and its options."""
    first = next(iter(cases.values()))
    checks = tuple(case.check for case in cases.values())
    place = " ".join((first.variant, *first.options))
    title = f"{', '.join(check.id for check in checks)} on {place}"
    began = start(image, proving, proving.lab.sampling.seed, first.options)
    name = f"seen-red-{content.digest(*cases)[:8]}"
    record = boot(began, checks, proving, name, title)
    found = {key: from_record(key, case, record, proving.commit) for key, case in cases.items()}
    for one in found.values():
        said = f"{one.check} on {place}: {one.outcome}"
        proving.progress.note(said + ("" if one.held else ", NOT as claimed"))
    return found


def from_record(key: str, case: Case, record: BootRecord, commit: str) -> Shown:
    """What a boot of one check says of its case."""
    (result,) = (one for one in record.checks if one.id == case.check.id)
    return Shown(
        key=key,
        check=case.check.id,
        variant=case.variant,
        options=case.options,
        image=record.image_key,
        expected=case.expected,
        outcome=result.outcome,
        seen=result.seen,
        boot=record.outcome,
        reason=record.reason,
        commit=commit,
        when=record.started,
    )
