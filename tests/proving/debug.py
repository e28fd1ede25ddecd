# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole features on a kernel that argues back: KASAN, lockdep, kmemleak, fault injection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from patchlab import config
from patchlab.building import build
from patchlab.guests import command_line
from patchlab.record import BootRecord
from patchlab.runs import features
from patchlab.store import content
from tests.proving import evidence
from tests.proving.desk import RECIPE, Proving, agent_code, boot, machine_key, start
from tests.proving.evidence import Argued

FRAGMENT = "config:debug"
# The revisions whose log is claimed to be clean. One that is known not to be has no place here.
CLEAN = (
    "fuse-direct-mmap@v2",
    "fuse-direct-mmap@v3",
    "fuse-writable-mmap@v2",
    "fuse-writable-mmap@v3",
    "map-direct@v6",
    "map-direct@v9",
)


def debug(proving: Proving) -> list[str]:
    """Every check of a revision's feature, in one boot, and nothing in the kernel's log."""
    file = proving.evidence / "debug.json"
    kept = evidence.load(file, Argued)
    before = {one.key: one for one in kept if one.held}
    variants = {name: f"{name} + {FRAGMENT}" for name in CLEAN}
    # What this has not come to yet stays in the file.
    shown = {one.variant: one for one in kept if one.variant in variants.values()}
    for name, variant in variants.items():
        if not proving.only or name in proving.only:
            shown[variant] = _wanted(name, proving, before)
            evidence.store(file, "debug", _ordered(shown, variants.values()))
    ordered = _ordered(shown, variants.values())
    evidence.store(file, "debug", ordered)
    evidence.write(file.with_suffix(".md"), evidence.debug_page(ordered))
    return [evidence.argument(one) for one in ordered if not one.held]


def _ordered(shown: Mapping[str, Argued], variants: Iterable[str]) -> list[Argued]:
    return [shown[variant] for variant in variants if variant in shown]


def _wanted(name: str, proving: Proving, before: dict[str, Argued]) -> Argued:
    lab = proving.lab
    variant = config.find_variant(lab, f"{name} + {FRAGMENT}")
    feature = lab.series[variant.revisions[0].series].feature
    image_key = build.plan_key(variant, lab, proving.cache)
    code = agent_code(command_line.GUEST_CODE, feature)
    key = content.digest(RECIPE, image_key, machine_key(lab), code)
    if key in before:
        return before[key]
    image = build.build(variant, lab, proving.cache, proving.progress)
    began = start(image, proving, lab.sampling.seed)
    checks = features.catalogue().of([feature]).checks
    title = f"every check of {feature} on {variant.name}"
    record = boot(began, checks, proving, f"debug-{key[:8]}", title)
    known = tuple(check.id for check in checks if name in check.places)
    return _argued(key, variant.name, record, proving.commit, known)


def _argued(
    key: str, variant: str, record: BootRecord, commit: str, known: tuple[str, ...]
) -> Argued:
    return Argued(
        key=key,
        variant=variant,
        image=record.image_key,
        outcome=record.outcome,
        reason=record.reason,
        checks={one.id: (one.outcome, one.seconds, one.seen) for one in record.checks},
        findings=tuple(one.title for one in record.findings if not one.known),
        seconds=record.seconds,
        commit=commit,
        when=record.started,
        known=known,
    )
