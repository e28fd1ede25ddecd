# SPDX-License-Identifier: GPL-2.0-or-later
"""An image built on top of its base has the bytes of one built from clean source."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

import msgspec

from patchlab import config
from patchlab.building import build, make, series, tree
from patchlab.model import Variant
from patchlab.paths import Cache
from patchlab.sources import pristine, source
from patchlab.store import content
from tests.proving import evidence
from tests.proving.desk import Proving, now
from tests.proving.evidence import CleanBuild

# It changes a header that fs, mm and drivers include: the hardest case for an old tree.
CLEAN = "planted-virtio-pmem@v1"


def clean_build(proving: Proving) -> list[str]:
    """A variant that starts from its built base has the bytes of one built cold."""
    file = proving.evidence / "clean-build.json"
    variant = config.find_variant(proving.lab, CLEAN)
    key = build.plan_key(variant, proving.lab, proving.cache)
    done = [o for o in evidence.load(file, CleanBuild) if o.key == key and o.clean == o.incremental]
    if not done:
        image = build.build(variant, proving.lab, proving.cache, proving.progress)
        begun = time.monotonic()
        digest, steps = _build_cold(variant, proving)
        seconds = time.monotonic() - begun
        sums = (image.bzimage_sha256, digest, image.build_steps, steps)
        done = [CleanBuild(key, CLEAN, *sums, seconds, proving.commit, now())]
        evidence.store(file, "clean-build", done)
    evidence.write(file.with_suffix(".md"), evidence.clean_build_page(done[0]))
    same = done[0].clean == done[0].incremental
    return [] if same else [f"{CLEAN}: a clean build has another bzImage than an incremental one"]


def _build_cold(variant: Variant, proving: Proving) -> tuple[str, int]:
    """SHA-256 of bzImage and the steps of a build that starts from patched, clean source."""
    sources = source.fetch(variant.base, proving.cache, proving.progress)
    plan = build.plan_of(variant, proving.lab, proving.cache)

    def fill(to: Path) -> None:
        folder = to / "tree"
        # A cache of its own: the log and the count of steps are not those of the image.
        shop = build.Shop(proving.lab, Cache(to), proving.progress, os.cpu_count() or 1)
        tree.clone(sources.folder, folder)
        patches = series.apply(folder, variant.revisions, proving.progress)
        with pristine.guarded(sources, proving.cache):
            build.compile_tree(plan, folder, patches, shop)
        shutil.copyfile(build.product(folder, make.PRODUCTS["bzImage"]), to / "bzImage")
        shutil.rmtree(folder)

    # Not to keep it, but for its lock, and so that gc knows what a killed one left.
    room = proving.cache.room("clean")
    made = content.publish(room, plan.key, fill)
    digest = hashlib.sha256((made / "bzImage").read_bytes()).hexdigest()
    built = msgspec.json.decode((made / "built.json").read_bytes(), type=build.Built)
    content.discard(room, plan.key)
    return digest, built.steps
