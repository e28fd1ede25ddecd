# SPDX-License-Identifier: GPL-2.0-or-later
"""Each patch of each series builds and boots: a bisection never lands on a broken kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from patchlab.building import build
from patchlab.model import Base, Lab, Revision, Variant
from patchlab.store import content
from tests.proving import evidence
from tests.proving.desk import RECIPE, REPOSITORY, Proving, boot, machine_key, start
from tests.proving.evidence import Prefix


@dataclass(frozen=True, slots=True)
class _Place:
    """The first ``count`` patches of a revision, on one base."""

    revision: Revision
    base: Base
    count: int

    @property
    def variant(self) -> Variant:
        first = replace(self.revision, patches=self.revision.patches[: self.count])
        name = f"{first.series}@{first.name}, patch {self.count}"
        return Variant(name, self.base, (first,))


def patches(proving: Proving) -> list[str]:
    """Every prefix of every shipped revision is built, booted, and the log is clean."""
    file = proving.evidence / "patches.json"
    kept = evidence.load(file, Prefix)
    before = {one.key: one for one in kept if one.held}
    earlier = {(one.series, one.revision, one.patch): one for one in kept}
    shown: list[Prefix] = []
    for place in _places(proving):
        if proving.only and str(place.revision) not in proving.only:
            old = earlier.get((place.revision.series, place.revision.name, place.count))
            shown += [old] if old else []
        else:
            key = _key(place, proving)
            shown.append(before.get(key) or _show(key, place, proving))
        evidence.store(file, "patches", shown)
    evidence.write(file.with_suffix(".md"), evidence.patches_page(shown))
    return [
        f"{one.series}@{one.revision}, patch {one.patch}: {one.outcome}: {one.reason}"
        for one in shown
        if not one.held
    ]


def shipped(lab: Lab) -> tuple[Revision, ...]:
    """The revisions whose prefixes are built: those of patches/."""
    folder = REPOSITORY / "patches"
    return tuple(
        revision
        for series in lab.series.values()
        if series.file.resolve().is_relative_to(folder)
        for revision in series.revisions
    )


def _places(proving: Proving) -> Iterator[_Place]:
    for revision in shipped(proving.lab):
        for base in revision.bases:
            for count in range(1, len(revision.patches) + 1):
                yield _Place(revision, proving.lab.bases[base], count)


def _key(place: _Place, proving: Proving) -> str:
    image = build.plan_key(place.variant, proving.lab, proving.cache)
    return content.digest(RECIPE, image, machine_key(proving.lab))


def _show(key: str, place: _Place, proving: Proving) -> Prefix:
    variant, revision = place.variant, place.revision
    image = build.build(variant, proving.lab, proving.cache, proving.progress)
    began = start(image, proving, proving.lab.sampling.seed)
    record = boot(began, (), proving, f"patches-{key[:8]}", f"boot {variant.name}")
    return Prefix(
        key=key,
        series=revision.series,
        revision=revision.name,
        patch=place.count,
        subject=revision.patches[place.count - 1].subject,
        image=image.key,
        outcome=record.outcome,
        reason=record.reason,
        commit=proving.commit,
        when=record.started,
    )
