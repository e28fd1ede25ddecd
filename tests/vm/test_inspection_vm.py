# SPDX-License-Identifier: GPL-2.0-or-later
"""Static rules with the kernel's own scripts, from the source of the shipped base."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path

import pytest

from patchlab import config
from patchlab.model import Lab, Patch, Revision, SourceTree, Variant
from patchlab.paths import Cache
from patchlab.progress import Silent
from patchlab.review import Demand, Ruling
from patchlab.reviews import inspection
from patchlab.reviews.inspection import Scripts, Subject
from patchlab.reviews.rules import CannotTell
from patchlab.sources import source
from tests.vm.conftest import CONTROL

pytestmark = pytest.mark.vm

RULES = ("checkpatch", "kernel-doc")
# Written badly on purpose: two comments of the kind that a reviewer found, and a long line.
BAD = """From 0123456789abcdef0123456789abcdef01234567 Mon Sep 17 00:00:00 2001
From: A Person <a@localhost>
Date: Wed, 30 Apr 2008 00:54:41 -0700
Subject: [PATCH] fuse: plant bad comments

Say why, in a changelog of more than one line, so that nothing is left
to be said of it.

Signed-off-by: A Person <a@localhost>
---
{notes}
 fs/fuse/control.c | 8 ++++++++
 1 file changed, 8 insertions(+)

diff --git a/fs/fuse/control.c b/fs/fuse/control.c
--- a/fs/fuse/control.c
+++ b/fs/fuse/control.c
@@ -1,3 +1,11 @@
+/**
+ * fuse_planted() - has a parameter that nobody describes
+ */
+static inline void fuse_planted(int undescribed) {{ (void)undescribed; }}
+
+/** Planted flags, for nobody */
+#define FUSE_PLANTED (1 << 0)
+
 /*
   FUSE: Filesystem in Userspace
   Copyright (C) 2001-2008  Miklos Szeredi <miklos@szeredi.hu>
"""


@pytest.fixture(scope="module")
def tree(lab: Lab, cache: Cache) -> SourceTree:
    return source.fetch(config.find_variant(lab, "base").base, cache, Silent())


def planted(lab: Lab, folder: Path, notes: str = "") -> Variant:
    file = folder / "0001-planted.patch"
    file.write_text(BAD.format(notes=notes))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    base = config.find_variant(lab, "base").base
    revision = Revision("planted", "v1", (base.name,), (Patch(file, "planted", sha256),), 3)
    return Variant(str(revision), base, (revision,))


def test_the_scripts_find_what_is_wrong(lab: Lab, tree: SourceTree, tmp_path: Path) -> None:
    subject = Subject(planted(lab, tmp_path), 0)
    found = inspection.decide(subject, RULES, tree.folder, tmp_path / "work", Silent())
    assert {decision.ruling for decision in found.values()} == {Ruling.BROKEN}
    said = found["checkpatch"].seen
    assert "0001-planted.patch: fs/fuse/control.c:7: CHECK:BIT_MACRO: Prefer using the BIT" in said
    described = "Function parameter or struct member 'undescribed' not described in 'fuse_planted'"
    assert found["kernel-doc"].seen.splitlines() == [
        f"fs/fuse/control.c: {described}",
        'fs/fuse/control.c: begins like kernel-doc and is not: "/** Planted flags, for nobody"',
    ]


def test_stated_reasons_excuse(lab: Lab, tree: SourceTree, tmp_path: Path) -> None:
    names = ("checkpatch",)
    bare = Subject(planted(lab, tmp_path), 0)
    said = inspection.decide(bare, names, tree.folder, tmp_path / "work", Silent())
    types = {line.split(": ")[2].split(":")[1] for line in said["checkpatch"].seen.splitlines()}
    notes = "".join(f"checkpatch: {kind}: planted by a test\n" for kind in types)
    excused = Subject(planted(lab, tmp_path, notes), 0)
    found = inspection.decide(excused, names, tree.folder, tmp_path / "work", Silent())
    assert found["checkpatch"].ruling is Ruling.HOLDS
    assert found["checkpatch"].seen.count("planted by a test") == len(types) > 0


def test_the_shipped_patches_are_clean(lab: Lab, tree: SourceTree, tmp_path: Path) -> None:
    for series in lab.series.values():
        for revision in series.revisions:
            subject = Subject(config.find_variant(lab, str(revision)), 0)
            names = ("checkpatch",)
            found = inspection.decide(subject, names, tree.folder, tmp_path / "work", Silent())
            assert found["checkpatch"].ruling is Ruling.HOLDS, (revision, found["checkpatch"].seen)


def test_a_second_look_is_from_the_cache(lab: Lab, cache: Cache) -> None:
    variant = config.find_variant(lab, CONTROL)
    series = lab.series[variant.revisions[0].series]
    demand = Demand("clean", "A", "2009", "clean", (), RULES)
    asking = replace(lab, series={series.name: replace(series, ledger=(demand,))})
    first = inspection.inspect([variant], asking, cache, Silent())
    begun = time.monotonic()
    assert inspection.inspect([variant, variant], asking, cache, Silent()) == first * 2
    assert time.monotonic() - begun < 0.5
    assert [(one.variant, one.revision, one.rule) for one in first] == [
        (CONTROL, "control", "checkpatch"),
        (CONTROL, "control", "kernel-doc"),
    ]


def test_a_script_that_cannot_finish_is_told_from_one_that_found_something(
    tree: SourceTree, tmp_path: Path
) -> None:
    broken = tmp_path / "scripts"
    broken.mkdir()
    (broken / "checkpatch.pl").write_text("die 'planted';\n")
    scripts = Scripts(tmp_path, tree.folder, tree.folder)
    with pytest.raises(CannotTell, match="planted"):
        scripts.checkpatch(b"")
