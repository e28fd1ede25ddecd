# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from patchlab.review import Ruling
from patchlab.reviews import patchtext, rules
from patchlab.reviews.patchtext import PatchText
from patchlab.reviews.rules import CannotTell, Decision, FileChange, Material

ROOT = Path(__file__).parents[2]
REAL = ROOT / "patches/fuse-writable-mmap/control"
UAPI = "include/uapi/linux/fuse.h"
# What the script of Linux 6.12 printed of a patch that adds a file.
CHECKPATCH = """\
include/linux/dax_plant.h:90: WARNING:FILE_PATH_CHANGES: added, moved or deleted file(s), does MAINTAINERS need updating?
-:12: ERROR:BAD_SIGN_OFF: Unrecognized email address: 'x'
total: 1 errors, 1 warnings, 0 checks, 74 lines checked
"""  # noqa: E501
KERNEL_DOC = """\
./fs/fuse/fuse_i.h:1332: warning: Function parameter or struct member 'fc' not described in 'inval'
./fs/fuse/fuse_i.h:384: warning: This comment starts with '/**', but isn't a kernel-doc comment. Refer Documentation/doc-guide/kernel-doc.rst
 * Request flags
"""  # noqa: E501


@dataclass
class Said:
    """The kernel's scripts, by what they once printed."""

    checkpatch_said: str = ""
    kernel_doc_said: tuple[str, str] = ("", "")
    asked: list[str] = field(default_factory=list)

    def checkpatch(self, patch: bytes) -> str:
        self.asked.append(f"{len(patch)} bytes")
        return self.checkpatch_said

    def kernel_doc(self, path: str) -> tuple[str, str]:
        self.asked.append(path)
        return self.kernel_doc_said


class Missing:
    def checkpatch(self, patch: bytes) -> str:  # noqa: ARG002
        raise CannotTell("this host has no perl", hint="install it")

    def kernel_doc(self, path: str) -> tuple[str, str]:  # noqa: ARG002
        raise CannotTell("this host has no perl", hint="install it")


def patch(changelog: str = "", notes: str = "", name: str = "0001-x.patch") -> PatchText:
    return PatchText(name, changelog, notes, b"")


def decide(
    rule: str,
    *patches: PatchText,
    tools: rules.Tools | None = None,
    path: str = "fs/fuse/mmap.c",
    before: str = "",
    after: str = "",
) -> Decision:
    changes = (FileChange(path, before, after),) if before or after else ()
    return rules.decide(rule, Material(patches or (patch(),), changes, tools or Said()))


def test_a_real_patch_is_taken_apart() -> None:
    (file,) = REAL.glob("*.patch")
    text = patchtext.read(file.name, file.read_bytes())
    assert text.changelog.startswith("Linux 2.6.26 made FUSE files mappable shared and writable")
    assert "Signed-off-by" not in text.changelog
    assert text.changelog.endswith(
        "With it every\npage is dirtied through a file that is on the list."
    )
    assert "It is not for merging" in text.notes
    assert "diff --git" not in text.notes
    said = patchtext.sentences(text.changelog)
    assert "MAP_PRIVATE has no VM_SHARED and is not looked at." in said
    assert all("\n" not in sentence for sentence in said)
    assert patchtext.sentences(
        "One, e.g. this.  do_mmap() is two.\n - three\n\nfour? Five!\nHead\n---\nSix"
    ) == [
        "One, e.g. this.",
        "do_mmap() is two.",
        "three",
        "four?",
        "Five!",
        "Head",
        "Six",
    ]


def test_an_encoded_patch_is_decoded() -> None:
    data = (
        b"Subject: [PATCH] x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\n"
        b"Content-Transfer-Encoding: quoted-printable\n\nWhy =E2=80=93 because.\n---\nnote\n"
        b"diff --git a/a b/a\n"
    )
    text = patchtext.read("x", data)
    assert (text.changelog, text.notes.strip()) == ("Why \u2013 because.", "note")
    assert patchtext.read("x", b"\xff\xfe no patch").notes == ""


# ---------------------------------------------------------------- checkpatch


def test_a_message_of_checkpatch_needs_a_reason() -> None:
    decision = decide("checkpatch", tools=Said(CHECKPATCH))
    assert decision.ruling is Ruling.BROKEN
    first, second = decision.seen.splitlines()
    assert first.startswith("0001-x.patch: include/linux/dax_plant.h:90: WARNING:FILE_PATH_CHANGES")
    assert second == "0001-x.patch: 12: ERROR:BAD_SIGN_OFF: Unrecognized email address: 'x'"


def test_a_stated_reason_excuses_its_type_and_is_shown() -> None:
    notes = "\nNotes:\n    checkpatch: FILE_PATH_CHANGES: MAINTAINERS has fs/fuse/ already.\n"
    left = decide("checkpatch", patch(notes=notes), tools=Said(CHECKPATCH))
    assert "BAD_SIGN_OFF" in left.seen and "FILE_PATH_CHANGES" not in left.seen
    both = notes + "checkpatch: BAD_SIGN_OFF: it is.\ncheckpatch: LONG_LINE: never so\n"
    clean = decide("checkpatch", patch(notes=both), tools=Said(CHECKPATCH))
    assert clean.ruling is Ruling.HOLDS
    assert "FILE_PATH_CHANGES: MAINTAINERS has fs/fuse/ already." in clean.seen
    assert "LONG_LINE (did not come up): never so" in clean.seen


def test_a_reason_must_be_in_the_notes_and_not_empty() -> None:
    excuse = "checkpatch: FILE_PATH_CHANGES: because"
    for one in (patch(changelog=excuse), patch(notes="checkpatch: FILE_PATH_CHANGES:  \n")):
        assert "FILE_PATH_CHANGES" in decide("checkpatch", one, tools=Said(CHECKPATCH)).seen


def test_every_patch_is_asked_about() -> None:
    tools = Said()
    decision = decide("checkpatch", patch(), patch(name="0002-y.patch"), tools=tools)
    assert decision == Decision(Ruling.HOLDS, "2 patches, no message without a reason")
    assert len(tools.asked) == 2


@pytest.mark.parametrize("rule", ["checkpatch", "kernel-doc"])
def test_a_tool_that_does_not_run_leaves_it_undecided_with_the_remedy(rule: str) -> None:
    decision = decide(rule, tools=Missing(), after="int x;\n")
    assert decision == Decision(Ruling.UNDECIDED, "this host has no perl", "install it")


# ---------------------------------------------------------------- kernel-doc


def test_only_new_warnings_of_kernel_doc_count() -> None:
    moved = KERNEL_DOC.replace(":1332:", ":1400:")
    same = decide("kernel-doc", tools=Said("", (KERNEL_DOC, moved)), before="a", after="b")
    assert same == Decision(Ruling.HOLDS, "no new warning in 1 file")
    new = decide("kernel-doc", tools=Said("", ("", KERNEL_DOC)), after="b")
    assert new.ruling is Ruling.BROKEN
    assert new.seen == (
        "fs/fuse/mmap.c: Function parameter or struct member 'fc' not described in 'inval'"
    )


@pytest.mark.parametrize(
    "comment",
    [
        "struct fuse_req {\n\t/** to move filp for mmap between client and server */\n\tint x;\n};",
        "/**\n * Mmap flags\n *\n * FUSE_MMAP_DONT_COPY: don't copy the region on fork\n */\n"
        "#define FUSE_MMAP_DONT_COPY (1 << 0)",
        "/**\n * Server decides: new region, or one that it has\n */",
    ],
)
def test_a_comment_that_pretends_to_be_kernel_doc_is_found(comment: str) -> None:
    decision = decide("kernel-doc", after=f"int a;\n{comment}\n")
    assert decision.ruling is Ruling.BROKEN
    assert 'begins like kernel-doc and is not: "/** ' in decision.seen
    old = decide("kernel-doc", before=f"{comment}\nint a;\n", after=f"int b;\n\n{comment}\n")
    assert old.ruling is Ruling.HOLDS


@pytest.mark.parametrize(
    "comment",
    [
        "/**\n * fuse_mmap() - ask the server for a region\n * @file: the open file\n */",
        "/**\n * struct fuse_map - one mapping\n */",
        "/**\n * DOC: direct mmap\n */",
        "struct a {\n\t/** @fd: the region */\n\tint fd;\n};",
        "struct a {\n\t/**\n\t * @map.fd: the region\n\t */\n\tint fd;\n};",
        "/* Mmap flags */",
        "/*** a box ***/",
        "/**/",
    ],
)
def test_kernel_doc_and_plain_comments_are_left_alone(comment: str) -> None:
    assert decide("kernel-doc", after=f"{comment}\nint a;\n").ruling is Ruling.HOLDS


def test_documents_and_removed_files_are_not_asked_about() -> None:
    tools = Said()
    decide("kernel-doc", tools=tools, path="Documentation/x.rst", after="/** x */")
    decide("kernel-doc", tools=tools, before="int gone;")
    assert tools.asked == []


# ---------------------------------------------------------------- code and protocol


@pytest.mark.parametrize(
    "line",
    ["req = fuse_get_req_nofail(fc, file);", "p = mempool_alloc(pool, GFP_KERNEL);",
     "struct fuse_req *reserved_req;"],
)  # fmt: skip
def test_a_reserve_of_its_own_is_found(line: str) -> None:
    decision = decide("no-private-reserve", after=f"\t{line}\n")
    assert decision == Decision(Ruling.BROKEN, f"fs/fuse/mmap.c: {line}")
    assert decide("no-private-reserve", before=line, after=f"int x;\n{line}").ruling is Ruling.HOLDS


def test_a_comment_on_reserves_is_no_reserve() -> None:
    after = "/*\n * There is no fuse_get_req_nofail() any more.\n */\nint x; // no mempool_alloc\n"
    assert decide("no-private-reserve", after=after).ruling is Ruling.HOLDS


HEADER = "enum {\n\tFUSE_STATX\t\t= 52,\n};\n"
THREE = HEADER.replace("};", "\tFUSE_MMAP = 200,\n\tFUSE_MMAP_COMMIT\t= 201,\n};")
TWO = HEADER.replace("};", "\tFUSE_MMAP = 200,\n\tFUSE_MUNMAP = 202,\t/* no COMMIT */\n};")


def test_a_third_message_is_found() -> None:
    three = decide("two-way", path=UAPI, before=HEADER, after=THREE)
    assert three == Decision(Ruling.BROKEN, "FUSE_MMAP_COMMIT is a third message")
    two = decide("two-way", path=UAPI, before=HEADER, after=TWO)
    assert two == Decision(Ruling.HOLDS, "adds FUSE_MMAP, FUSE_MUNMAP")
    elsewhere = decide("two-way", before=HEADER, after=THREE)
    assert elsewhere.ruling is Ruling.UNDECIDED


STRUCT = "struct fuse_mmap_out {\n\tint32_t\t\tfd;\n\tuint32_t\tflags;\n};\n"


def test_a_descriptor_in_the_protocol_is_found() -> None:
    fd = decide("no-fd-in-protocol", path=UAPI, before=HEADER, after=HEADER + STRUCT)
    assert fd == Decision(Ruling.BROKEN, "struct fuse_mmap_out has fd")
    without = STRUCT.replace("fd;", "id;\t/* not an fd; */\n\tuint64_t\tspare[4];")
    none = decide("no-fd-in-protocol", path=UAPI, before=HEADER, after=HEADER + without)
    assert none == Decision(Ruling.HOLDS, "no descriptor in fuse_mmap_out")
    known = decide("no-fd-in-protocol", path=UAPI, before=STRUCT, after=STRUCT + without)
    assert known == Decision(Ruling.HOLDS, "no descriptor in fuse_mmap_out")
    assert decide("no-fd-in-protocol", path=UAPI, before="a", after="b").ruling is Ruling.UNDECIDED


# ---------------------------------------------------------------- changelogs

ARGUED = """\
fuse: map directly

The region's own vm_ops are
overridden.  That is a hack, e.g. two copies exist.

 - Locking: open() runs under mmap_lock.
 - The mapping's lifetime ends with its last VMA.
"""


def test_a_changelog_that_argues_shows_its_sentences() -> None:
    decision = decide("changelog-argues:vm_ops", patch("nothing"), patch(ARGUED))
    assert decision.ruling is Ruling.HOLDS
    assert decision.seen.splitlines() == [
        "0001-x.patch:",
        "The region's own vm_ops are overridden.",
        "Locking: open() runs under mmap_lock.",
        "The mapping's lifetime ends with its last VMA.",
    ]


@pytest.mark.parametrize(
    ("changelogs", "seen"),
    [
        (["fuse: x"], "no changelog names vm_ops"),
        (["my_vm_ops_2 locks, lifetime"], "no changelog names vm_ops"),
        ([ARGUED.replace("lifetime", "end")], "nothing on lifetime or risk"),
        (["vm_ops of a block, at risk."], "nothing on locks"),
        # Said in two changelogs is said in none.
        (["vm_ops.", "Locks, and their lifetime."], "nothing on locks or on lifetime or risk"),
    ],
)
def test_a_changelog_that_does_not_argue_says_what_it_lacks(
    changelogs: list[str], seen: str
) -> None:
    decision = decide("changelog-argues:vm_ops", *(patch(text) for text in changelogs))
    assert decision.ruling is Ruling.BROKEN
    assert seen in decision.seen


def test_a_flood_of_messages_is_cut_and_counted() -> None:
    said = "".join(f"a.c:{n}: WARNING:LONG_LINE: {'x' * 1000}\n" for n in range(50))
    decision = decide("checkpatch", tools=Said(said))
    assert decision.seen.endswith("\nand 30 more")
    assert len(decision.seen) < 10_000


@pytest.mark.parametrize("text", ["/** x " * 50_000, "struct a {" * 20_000, "x" + " " * 50_000])
def test_a_hostile_file_takes_no_long_time(text: str) -> None:
    begun = time.monotonic()
    for rule in ("kernel-doc", "no-private-reserve", "two-way", "no-fd-in-protocol"):
        decide(rule, path=UAPI.replace(".h", ".x.h"), after=text)
    assert time.monotonic() - begun < 5
