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
    def name(self) -> evidence.Place:
        return self.revision.series, self.revision.name, self.base.name, self.count

    @property
    def variant(self) -> Variant:
        first = replace(self.revision, patches=self.revision.patches[: self.count])
        name = f"{first.series}@{first.name}, patch {self.count}"
        return Variant(name, self.base, (first,))


def patches(proving: Proving) -> list[str]:
    """Every prefix of every shipped revision is built, booted, and the log is clean."""
    file = proving.evidence / "patches.json"
    places = {place.name: place for place in _places(proving)}
    shown = {one.place: one for one in evidence.load(file, Prefix) if one.place in places}
    keys = {name: _key(place, proving) for name, place in places.items()}
    for name, place in places.items():
        if proving.only and str(place.revision) not in proving.only:
            continue
        old = shown.get(name)
        if old is None or not old.held or old.key != keys[name]:
            shown[name] = _show(keys[name], place, proving)
            evidence.store(file, "patches", [shown[one] for one in places if one in shown])
    ordered = [shown[one] for one in places if one in shown]
    evidence.store(file, "patches", ordered)
    evidence.write(file.with_suffix(".md"), evidence.patches_page(ordered, keys))
    return [
        f"{one.series}@{one.revision}, patch {one.patch} on {one.base}: {one.outcome}: {one.reason}"
        for one in ordered
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
        base=place.base.name,
        patch=place.count,
        subject=revision.patches[place.count - 1].subject,
        image=image.key,
        outcome=record.outcome,
        reason=record.reason,
        commit=proving.commit,
        when=record.started,
    )
