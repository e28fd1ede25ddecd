# SPDX-License-Identifier: GPL-2.0-or-later
"""Static rules on real patches of a small tree. tests/vm has those with the kernel's scripts."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from patchlab import proc
from patchlab.config import load
from patchlab.errors import PatchError
from patchlab.model import Base, DebianSource, Patch, Revision, Variant
from patchlab.progress import Silent
from patchlab.review import Demand, Ruling
from patchlab.reviews import inspection, rules
from patchlab.reviews.inspection import Scripts, Subject
from patchlab.reviews.rules import CannotTell, Decision

ROOT = Path(__file__).parents[2]
UAPI = "include/uapi/linux/fuse.h"
HEADER = "enum fuse_opcode {\n\tFUSE_STATX\t\t= 52,\n};\n"
CODE = "fs/fuse/file.c"
BASE = Base("linux", "Linux", Path("linux.toml"), DebianSource("p", "t"), (), 1)


def git(folder: Path, *argv: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@localhost", "-c", "core.pager=cat")
    env = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    return proc.run(["git", *identity, *argv], deadline=30, cwd=folder, env=env).output


@pytest.fixture
def pristine(tmp_path: Path) -> Path:
    """A source tree; a repository beside it, of the same content, makes the patches."""
    for folder in (tmp_path / "pristine", tmp_path / "origin"):
        for name, text in {UAPI: HEADER, CODE: "int a;\n" * 9, "other.c": "int o;\n"}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    origin = tmp_path / "origin"
    git(origin, "init", "--quiet", "--initial-branch=main")
    git(origin, "add", ".")
    git(origin, "commit", "--quiet", "--message=pristine")
    return tmp_path / "pristine"


def patch_of(pristine: Path, files: dict[str, str], message: str = "change") -> Patch:
    """A format-patch file that gives the files these texts."""
    origin = pristine.with_name("origin")
    for name, text in files.items():
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        (origin / name).write_text(text)
    git(origin, "add", "--all")
    git(origin, "commit", "--quiet", f"--message={message}")
    number = len(list(pristine.parent.glob("*.patch"))) + 1
    out = pristine.parent / f"{number:04d}.patch"
    out.write_text(git(origin, "format-patch", "--stdout", "-1"))
    return read(out)


def read(file: Path) -> Patch:
    return Patch(file, file.stem, hashlib.sha256(file.read_bytes()).hexdigest())


def revision(name: str, *patches: Patch, series: str = "demo") -> Revision:
    return Revision(series, name, ("linux",), patches, 3)


def decide(
    pristine: Path, *revisions: Revision, names: tuple[str, ...] = ("two-way",)
) -> dict[str, Decision]:
    """What the rules say of the last revision, after the others."""
    variant = Variant("v", BASE, revisions)
    subject = Subject(variant, len(revisions) - 1)
    return inspection.decide(subject, names, pristine, pristine.with_name("work"), Silent())


def with_opcodes(*lines: str) -> str:
    return HEADER.replace("};", "".join(f"\t{line},\n" for line in lines) + "};")


def test_the_rules_see_what_the_revision_as_a_whole_did(pristine: Path) -> None:
    three = with_opcodes("FUSE_MMAP = 200", "FUSE_MMAP_COMMIT = 201")
    first = patch_of(pristine, {UAPI: three})
    second = patch_of(pristine, {UAPI: with_opcodes("FUSE_MMAP = 200")}, "take COMMIT out again")
    assert decide(pristine, revision("v1", first))["two-way"].ruling is Ruling.BROKEN
    assert decide(pristine, revision("v2", first, second))["two-way"] == Decision(
        Ruling.HOLDS, "adds FUSE_MMAP"
    )
    assert (pristine / UAPI).read_text() == HEADER
    assert not pristine.with_name("work").exists()


def test_what_an_earlier_series_of_the_arm_did_is_not_the_revisions(pristine: Path) -> None:
    other = patch_of(pristine, {UAPI: with_opcodes("FUSE_OTHER_COMMIT = 200")})
    mine = patch_of(
        pristine,
        {UAPI: with_opcodes("FUSE_OTHER_COMMIT = 200", "FUSE_MINE = 201"), "n.c": "int;\n"},
    )
    found = decide(pristine, revision("v1", other, series="other"), revision("v1", mine))
    assert found["two-way"] == Decision(Ruling.HOLDS, "adds FUSE_MINE")
    assert (pristine / UAPI).read_text() == HEADER


def test_changelogs_are_read_from_the_patches(pristine: Path) -> None:
    argued = "fuse: map\n\nvm_ops are overridden under mmap_lock.\n\nThe lifetime is clear."
    patch = patch_of(pristine, {CODE: "int b;\n"}, argued)
    found = decide(pristine, revision("v1", patch), names=("changelog-argues:vm_ops",))
    assert found["changelog-argues:vm_ops"].seen.splitlines() == [
        "0001.patch:",
        "vm_ops are overridden under mmap_lock.",
        "The lifetime is clear.",
    ]


def test_a_source_without_the_scripts_leaves_the_rule_undecided(pristine: Path) -> None:
    patch = patch_of(pristine, {CODE: "/** no kernel-doc */\n"})
    found = decide(pristine, revision("v1", patch), names=("checkpatch", "kernel-doc"))
    assert found["checkpatch"].ruling is Ruling.UNDECIDED
    assert found["checkpatch"].seen == "the base's source has no scripts/checkpatch.pl"
    assert found["kernel-doc"].seen == "the base's source has no scripts/kernel-doc"
    assert all(decision.remedy for decision in found.values())


def test_a_host_without_perl_is_told_how_to_get_it(pristine: Path) -> None:
    for name in ("checkpatch.pl", "kernel-doc"):
        (pristine / "scripts").mkdir(exist_ok=True)
        (pristine / "scripts" / name).write_text("#!/usr/bin/perl\n")
    scripts = Scripts(pristine, pristine, pristine, path=str(pristine))
    for ask in (lambda: scripts.checkpatch(b""), lambda: scripts.kernel_doc(CODE)):
        with pytest.raises(CannotTell, match="no perl") as caught:
            ask()
        assert "install -y --no-install-recommends perl" in caught.value.hint


OUTSIDE = """diff --git a/{name} b/{name}
--- a/{name}
+++ b/{name}
@@ -1 +1 @@
-secret
+shown
"""


@pytest.mark.parametrize("name", ["../secret.c", "link.c", "fs/../../secret.c"])
def test_nothing_from_outside_the_source_is_shown(pristine: Path, name: str) -> None:
    secret = pristine.with_name("secret.c")
    secret.write_text("secret\n")
    (pristine / "link.c").symlink_to(secret)
    file = pristine.with_name("bad.patch")
    file.write_text(f"Subject: [PATCH] x\n\n---\n{OUTSIDE.format(name=name)}")
    with pytest.raises(PatchError):
        decide(pristine, revision("v1", read(file)), names=("no-private-reserve",))
    assert secret.read_text() == "secret\n"


def test_a_planted_link_is_not_followed(pristine: Path) -> None:
    secret = pristine.with_name("secret.c")
    secret.write_text("mempool_alloc(secret);\n")
    (pristine.with_name("origin") / "way-out.c").symlink_to(secret)
    patch = patch_of(pristine, {CODE: "int b;\n"})
    found = decide(pristine, revision("v1", patch), names=("no-private-reserve",))
    assert found["no-private-reserve"].ruling is Ruling.HOLDS


def test_a_lab_asks_for_the_rules_that_its_ledgers_name() -> None:
    lab = load(ROOT / "lab.toml")
    series = lab.series["fuse-writable-mmap"]
    demands = (
        Demand("a", "A", "2009", "x", (), ("checkpatch", "two-way")),
        Demand("b", "B", "2009", "y", (), ("two-way", "changelog-argues:vm_ops")),
    )
    asking = replace(lab, series={series.name: replace(series, ledger=demands)})
    names = inspection.rules_of(asking, series.revisions[0])
    assert names == ("checkpatch", "two-way", "changelog-argues:vm_ops")
    assert inspection.rules_of(asking, revision("v1")) == ()
    assert {name.partition(":")[0] for name in names} <= set(rules.RULES)
