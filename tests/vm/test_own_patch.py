# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's own patch on the real base."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from patchlab import config
from patchlab.building import build
from patchlab.errors import PatchError
from patchlab.model import Image, Lab
from patchlab.paths import Cache
from patchlab.progress import Silent

pytestmark = pytest.mark.vm

PATCH = """diff --git a/fs/fuse/control.c b/fs/fuse/control.c
--- a/fs/fuse/control.c
+++ b/fs/fuse/control.c
@@ -1,3 +1,4 @@
+/* Mine. */
 /*
   FUSE: Filesystem in Userspace
   Copyright (C) 2001-2008  Miklos Szeredi <miklos@szeredi.hu>
"""


def test_one_that_applies_is_built_and_says_where_it_is_from(
    lab: Lab, cache: Cache, base: Image, tmp_path: Path
) -> None:
    (tmp_path / "my fix.patch").write_text(PATCH)
    variant = config.find_variant(lab, "base + ./my fix.patch", config.Place(tmp_path, cache))
    build.try_patches(variant, lab, cache, Silent())
    image = build.build(variant, lab, cache, Silent())
    assert image.variant == variant.name
    assert variant.name.startswith("my-fix@")
    [patch] = image.patches
    assert (f"{patch.series}@{patch.revision}", patch.files) == (
        variant.name,
        ("fs/fuse/control.c",),
    )
    assert image.release == base.release
    assert image.build_steps < base.build_steps / 10


def test_one_that_does_not_apply_is_refused_in_seconds(
    lab: Lab, cache: Cache, base: Image, tmp_path: Path
) -> None:
    (tmp_path / "bad.patch").write_text(PATCH.replace("2001-2008", "1066"))
    variant = config.find_variant(lab, "./bad.patch", config.Place(tmp_path, cache))
    begun = time.monotonic()
    with pytest.raises(PatchError, match=r"fs/fuse/control\.c: hunk 1") as caught:
        build.try_patches(variant, lab, cache, Silent())
    assert time.monotonic() - begun < 10
    assert f"of {tmp_path}/bad.patch does not apply" in str(caught.value)
    assert build.find(variant, lab, cache) is None
    assert base.key
