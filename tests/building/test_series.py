# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from patchlab import proc
from patchlab.building import series, tree
from patchlab.errors import PatchError
from patchlab.model import Fit, Patch, Revision
from patchlab.progress import Silent

FILE = "fs/fuse/file.c"
LINES = [f"line {number}" for number in range(1, 61)]


def git(folder: Path, *argv: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@localhost", "-c", "core.pager=cat")
    env = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    return proc.run(["git", *identity, *argv], deadline=30, cwd=folder, env=env).output


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A repository that patches are made in; its first commit is the pristine source."""
    folder = tmp_path / "origin"
    (folder / "fs/fuse").mkdir(parents=True)
    write(folder, LINES)
    (folder / "fs/fuse/other.c").write_text("other\n" * 30)
    (folder / "script.sh").write_text("#!/bin/sh\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=pristine")
    return folder


@pytest.fixture
def pristine(origin: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "pristine"
    git(origin, "worktree", "add", "--quiet", "--detach", str(folder))
    (folder / ".git").unlink()
    return folder


def write(folder: Path, lines: list[str]) -> None:
    (folder / FILE).write_text("\n".join([*lines, ""]))


def replaced(*changes: tuple[int, str]) -> list[str]:
    """LINES with some of them (by number) replaced."""
    new = dict(changes)
    return [new.get(number, line) for number, line in enumerate(LINES, 1)]


def revision(name: str, *files: Path, min_context: int = 3, of: str = "demo") -> Revision:
    patches = tuple(
        Patch(file, file.stem, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files
    )
    return Revision(of, name, ("linux",), patches, min_context)


def patch_of(origin: Path, change: Callable[[Path], object], message: str = "change") -> Path:
    """A real format-patch file of what ``change`` does to the origin."""
    change(origin)
    git(origin, "add", "--all")
    git(origin, "commit", "--quiet", f"--message={message}")
    number = len(list(origin.parent.glob("*.patch"))) + 1
    out = origin.parent / f"{number:04d}-{message.split(maxsplit=1)[0]}.patch"
    out.write_text(git(origin, "format-patch", "--stdout", "-M", "-1"))
    return out


def raw(folder: Path, text: str) -> Path:
    (folder / "raw.patch").write_text(text)
    return folder / "raw.patch"


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_mode, p.read_bytes()) for p in files}


def test_a_patch_goes_in_exactly(origin: Path, pristine: Path) -> None:
    file = patch_of(origin, lambda to: write(to, replaced((20, "changed"))))
    [applied] = series.apply(pristine, [revision("v1", file)], Silent())
    assert applied.fit is Fit.EXACT
    assert applied.files == (FILE,)
    assert (applied.series, applied.revision, applied.patch) == ("demo", "v1", file.name)
    assert "changed" in (pristine / FILE).read_text()


def test_a_patch_goes_in_at_another_line(origin: Path, pristine: Path) -> None:
    file = patch_of(origin, lambda to: write(to, replaced((20, "changed"))))
    write(pristine, ["new 1", "new 2", *LINES])
    [applied] = series.apply(pristine, [revision("v1", file)], Silent())
    assert applied.fit is Fit.OFFSET
    assert (pristine / FILE).read_text().splitlines()[21] == "changed"


def test_less_context_is_used_only_where_it_is_allowed(origin: Path, pristine: Path) -> None:
    file = patch_of(origin, lambda to: write(to, replaced((20, "changed"))))
    write(pristine, replaced((18, "moved on")))
    before = snapshot(pristine)
    for strict in (3, 2):
        with pytest.raises(PatchError, match=rf"{FILE}: hunk 1, line 17") as caught:
            series.apply(pristine, [revision("v1", file, min_context=strict)], Silent())
        assert f"min_context = {strict}" in caught.value.hint
        assert snapshot(pristine) == before
    [applied] = series.apply(pristine, [revision("v1", file, min_context=1)], Silent())
    assert applied.fit is Fit.REDUCED
    assert "changed" in (pristine / FILE).read_text()


def test_a_failing_patch_is_named_and_leaves_the_tree_as_it_was(
    origin: Path, pristine: Path
) -> None:
    def change(to: Path) -> None:
        write(to, replaced((10, "first hunk"), (40, "second hunk")))
        (to / "fs/fuse/other.c").write_text("changed\n")

    file = patch_of(origin, change)
    write(pristine, replaced((40, "somebody else's")))
    before = snapshot(pristine)
    with pytest.raises(PatchError) as caught:
        series.apply(pristine, [revision("v2", file)], Silent())
    message = str(caught.value)
    assert message.startswith(f"demo@v2: {file} does not apply")
    assert f"{FILE}: hunk 2, line 37" in message
    assert "patch does not apply" in message
    assert snapshot(pristine) == before


def test_in_a_stack_the_patch_that_was_there_before_is_named(origin: Path, pristine: Path) -> None:
    first = patch_of(origin, lambda to: write(to, replaced((20, "theirs"))), "theirs")
    git(origin, "reset", "--quiet", "--hard", "HEAD~1")
    second = patch_of(origin, lambda to: write(to, replaced((20, "ours"))), "ours")
    stack = [revision("v1", first, of="alpha"), revision("v3", second, of="beta")]
    with pytest.raises(PatchError, match=r"beta@v3: .*does not apply") as caught:
        series.apply(pristine, stack, Silent())
    clash = f"{FILE}: hunk 1, line 17 (already changed by alpha@v1: {first.name})"
    assert clash in str(caught.value)


def test_new_deleted_renamed_and_mode_changed_files_are_all_proved(
    origin: Path, pristine: Path
) -> None:
    def change(to: Path) -> None:
        (to / "fs/fuse/new.c").write_text("new\n")
        (to / "fs/fuse/other.c").rename(to / "fs/fuse/renamed.c")
        (to / "script.sh").chmod(0o755)
        (to / FILE).unlink()

    file = patch_of(origin, change, "all kinds, rename from nowhere\n\nrename from nowhere")
    [applied] = series.apply(pristine, [revision("v1", file)], Silent())
    assert set(applied.files) == {
        "fs/fuse/new.c",
        "fs/fuse/other.c",
        "fs/fuse/renamed.c",
        "script.sh",
        FILE,
    }
    assert os.access(pristine / "script.sh", os.X_OK)
    assert not (pristine / FILE).exists()


def test_a_removed_line_that_looks_like_a_header_is_no_header(origin: Path, pristine: Path) -> None:
    write(origin, replaced((20, "-- a/looks like one"), (21, "++ b/and another")))
    git(origin, "commit", "--quiet", "--all", "--message=before")
    (pristine / FILE).write_text((origin / FILE).read_text())
    file = patch_of(origin, lambda to: write(to, replaced((40, "second hunk"))))
    write(pristine, replaced((40, "not this")))
    with pytest.raises(PatchError, match=rf"{FILE}: hunk 1, line 17"):
        series.apply(pristine, [revision("v1", file)], Silent())


def test_inside_another_repository_patches_still_go_in(
    origin: Path, pristine: Path, tmp_path: Path
) -> None:
    file = patch_of(origin, lambda to: write(to, replaced((20, "changed"))))
    outer = tmp_path / "outer"
    (outer / "cache").mkdir(parents=True)
    git(outer, "init", "--quiet")
    inner = outer / "cache" / "tree"
    pristine.rename(inner)
    # The trap is real: git on its own says that all went well.
    proc.run(["git", "apply", str(file)], deadline=30, cwd=inner)
    assert "changed" not in (inner / FILE).read_text()
    series.apply(inner, [revision("v1", file)], Silent())
    assert "changed" in (inner / FILE).read_text()


def test_the_pristine_source_is_not_written_through_a_hard_link(
    origin: Path, pristine: Path, tmp_path: Path
) -> None:
    def change(to: Path) -> None:
        write(to, replaced((20, "changed")))
        (to / "script.sh").chmod(0o755)
        (to / "fs/fuse/other.c").unlink()

    file = patch_of(origin, change)
    for path in pristine.rglob("*"):  # make goes by dates: tree.clone() wants old sources
        os.utime(path, (10**9, 10**9), follow_symlinks=False)
    before = snapshot(pristine)
    clone = tmp_path / "clone"
    tree.clone(pristine, clone)
    assert (clone / FILE).samefile(pristine / FILE)
    series.apply(clone, [revision("v1", file)], Silent())
    assert snapshot(pristine) == before
    assert "changed" in (clone / FILE).read_text()


NEW_FILE = """diff --git a/{name} b/{name}
new file mode 100644
--- /dev/null
+++ b/{name}
@@ -0,0 +1 @@
+planted
"""
LINK = """diff --git a/way-out b/way-out
new file mode 120000
--- /dev/null
+++ b/way-out
@@ -0,0 +1 @@
+{target}
\\ No newline at end of file
"""


@pytest.mark.parametrize("name", ["../planted", "fs/../../planted", ".git/config", "/tmp/planted"])
def test_a_path_outside_the_tree_is_refused(pristine: Path, tmp_path: Path, name: str) -> None:
    file = raw(tmp_path, NEW_FILE.format(name=name))
    everything = snapshot(tmp_path)
    with pytest.raises(PatchError, match="does not apply"):
        series.apply(pristine, [revision("v1", file)], Silent())
    assert snapshot(tmp_path) == everything


def test_a_write_through_a_planted_link_is_refused(pristine: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    planted = NEW_FILE.format(name="way-out/planted")
    file = raw(tmp_path, LINK.format(target=outside) + planted)
    with pytest.raises(PatchError, match="beyond a symbolic link"):
        series.apply(pristine, [revision("v1", file)], Silent())
    link = tmp_path / "link.patch"
    link.write_text(LINK.format(target=outside))
    file.write_text(planted)
    with pytest.raises(PatchError, match="beyond a symbolic link"):
        series.apply(pristine, [revision("v1", link, file)], Silent())
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("text", ["", "not a patch\n", "--- a/x\n+++ b/x\n@@ -1,9 +1,9 @@\n x\n"])
def test_what_is_no_patch_is_an_error(pristine: Path, tmp_path: Path, text: str) -> None:
    file = raw(tmp_path, text)
    with pytest.raises(PatchError, match=re.escape(str(file))):
        series.apply(pristine, [revision("v1", file)], Silent())


def test_a_patch_that_is_in_already_is_an_error(origin: Path, pristine: Path) -> None:
    file = patch_of(origin, lambda to: write(to, replaced((20, "changed"))))
    series.apply(pristine, [revision("v1", file)], Silent())
    with pytest.raises(PatchError, match="does not apply"):
        series.apply(pristine, [revision("v1", file)], Silent())


def test_a_patch_that_changed_since_it_was_read_is_an_error(origin: Path, pristine: Path) -> None:
    file = patch_of(origin, lambda to: write(to, replaced((20, "changed"))))
    read = revision("v1", file)
    file.write_text(file.read_text().replace("changed", "edited"))
    with pytest.raises(PatchError, match="has changed since it was read"):
        series.apply(pristine, [read], Silent())


def test_terminal_escapes_in_a_name_are_not_shown(pristine: Path, tmp_path: Path) -> None:
    text = NEW_FILE.format(name="x").replace("@@ -0,0", "--- a/\x1b[31mred\n@@ -0,0")
    with pytest.raises(PatchError) as caught:
        series.apply(pristine, [revision("v1", raw(tmp_path, text))], Silent())
    assert "\x1b" not in str(caught.value)
