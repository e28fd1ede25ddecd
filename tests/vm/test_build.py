# SPDX-License-Identifier: GPL-2.0-or-later
"""Real builds. They share the user's cache with ``make lab``: the base is built once."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from patchlab import config
from patchlab.building import build
from patchlab.errors import BuildError, PatchError
from patchlab.model import Image, Lab, Patch, Revision, Variant
from patchlab.paths import Cache
from patchlab.progress import Silent

pytestmark = pytest.mark.vm

CONTROL = "fuse-writable-mmap@control"
BROKEN = """diff --git a/fs/fuse/control.c b/fs/fuse/control.c
--- a/fs/fuse/control.c
+++ b/fs/fuse/control.c
@@ -1,3 +1,4 @@
+#error planted by a test
 /*
   FUSE: Filesystem in Userspace
   Copyright (C) 2001-2008  Miklos Szeredi <miklos@szeredi.hu>
"""


@pytest.fixture
def second_cache(cache: Cache, base: Image) -> Iterator[Cache]:
    """A cache with the same sources and built bases, and no image. On the same filesystem."""
    assert base.folder.is_dir()
    folder = cache.room("tmp") / "test-second-cache"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for room in ("sources", "trees", "hosts"):
        (folder / room).symlink_to(cache.room(room))
    yield Cache(folder)
    shutil.rmtree(folder)


def planted(lab: Lab, file: Path, text: str) -> Variant:
    """The base with one patch of a test's own."""
    file.write_text(text)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    base = config.find_variant(lab, "base").base
    revision = Revision("planted", "v1", (base.name,), (Patch(file, "planted", sha256),), 3)
    return Variant(str(revision), base, (revision,))


def published(cache: Cache) -> tuple[list[str], list[str]]:
    images, temporary = cache.room("images"), cache.room("tmp")
    return [path.name for path in images.iterdir()], [path.name for path in temporary.iterdir()]


def test_the_same_inputs_give_the_same_bytes(
    lab: Lab, cache: Cache, second_cache: Cache, base: Image
) -> None:
    variant = config.find_variant(lab, CONTROL)
    first = build.build(variant, lab, cache, Silent())
    second = build.build(variant, lab, second_cache, Silent())
    assert first.folder != second.folder
    assert first.key == second.key
    for name in ("bzImage", "vmlinux", "config"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes(), name
    assert first.code_sha256 == second.code_sha256 != base.code_sha256
    assert [patch.files for patch in second.patches] == [("fs/fuse/file.c",)]
    assert second.build_steps < base.build_steps / 4


def test_an_unchanged_variant_is_not_built_again(lab: Lab, cache: Cache, base: Image) -> None:
    variant = config.find_variant(lab, "base")
    logs = {path: path.stat().st_mtime_ns for path in cache.room("logs").iterdir()}
    begun = time.monotonic()
    again = build.build(variant, lab, cache, Silent())
    assert time.monotonic() - begun < 1
    assert again == base == build.find(variant, lab, cache)
    assert {path: path.stat().st_mtime_ns for path in cache.room("logs").iterdir()} == logs


def test_an_option_that_does_not_survive_is_named(
    lab: Lab, second_cache: Cache, tmp_path: Path
) -> None:
    shutil.copytree(lab.kernels, tmp_path / "kernels")
    doomed = tmp_path / "kernels" / "config" / "doomed.config"
    doomed.write_text("CONFIG_DOES_NOT_EXIST=y\n")
    variant = replace(config.find_variant(lab, "base"), name="doomed", fragments=("doomed",))
    with pytest.raises(BuildError, match="CONFIG_DOES_NOT_EXIST: wanted y, got n") as caught:
        build.build(variant, replace(lab, kernels=tmp_path / "kernels"), second_cache, Silent())
    assert "doomed.config:1" in str(caught.value)
    assert published(second_cache) == ([], [])


def test_a_patch_that_does_not_apply_publishes_nothing(
    lab: Lab, second_cache: Cache, tmp_path: Path
) -> None:
    variant = planted(lab, tmp_path / "bad.patch", BROKEN.replace("2001-2008", "1066"))
    with pytest.raises(PatchError, match=r"fs/fuse/control\.c: hunk 1"):
        build.build(variant, lab, second_cache, Silent())
    assert published(second_cache) == ([], [])
    assert build.find(variant, lab, second_cache) is None


def test_a_kernel_that_does_not_compile_publishes_nothing_and_says_why(
    lab: Lab, second_cache: Cache, tmp_path: Path
) -> None:
    variant = planted(lab, tmp_path / "broken.patch", BROKEN)
    with pytest.raises(BuildError) as caught:
        build.build(variant, lab, second_cache, Silent())
    assert "fs/fuse/control.c:1:2: error: #error planted by a test" in str(caught.value)
    [log] = second_cache.room("logs").iterdir()
    assert str(log) in str(caught.value)
    assert "planted by a test" in log.read_text()
    assert published(second_cache) == ([], [])
