# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's own patches as part of a variant: files, mboxes and folders that git made."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from patchlab import config
from patchlab.building import series
from patchlab.config import own
from patchlab.errors import PatchError, UsageError
from patchlab.model import Lab, Variant
from patchlab.paths import Cache
from patchlab.progress import Silent
from tests.config import small_lab
from tests.sources.small_kernel import git

PLAIN = "diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n-old\n+new\n"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return small_lab.load(small_lab.make(tmp_path / "lab"))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A repository with three commits after its first one."""
    folder = tmp_path / "work"
    small_lab.write(folder / "a", "old\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    for number, text in enumerate(("old\n", "1: é\n", "2\n", "3\n")):
        small_lab.write(folder / "a", text)
        git(folder, "add", "a")
        git(folder, "commit", "--quiet", f"--message=a: change {number}\n\nWhy: naïve.")
    return folder


def found(lab: Lab, text: str, folder: Path) -> Variant:
    return config.find_variant(lab, text, config.Place(folder, Cache(lab.folder / "cache")))


def applied(variant: Variant, folder: Path) -> str:
    """What the variant's patches make of the file ``a``."""
    small_lab.write(folder / "tree/a", "old\n")
    series.apply(folder / "tree", variant.revisions, Silent())
    return (folder / "tree/a").read_text(encoding="utf-8")


def test_a_patch_becomes_a_revision_named_by_its_content(lab: Lab, work: Path) -> None:
    git(work, "format-patch", "--quiet", "-1", "main~2")
    variant = found(lab, "base + ./0001-a-change-1.patch", work)
    [revision] = variant.revisions
    assert re.fullmatch(r"0001-a-change-1@[0-9a-f]{8}", variant.name)
    assert (str(revision), revision.bases) == (variant.name, ("linux-6.12",))
    assert [patch.subject for patch in revision.patches] == ["a: change 1"]
    assert applied(variant, work.parent) == "1: é\n"
    same = found(lab, str(work / "0001-a-change-1.patch"), work.parent)
    assert same == variant
    small_lab.edit(work / "0001-a-change-1.patch", "+1: é", "+1: e")
    assert found(lab, "./0001-a-change-1.patch", work).name != variant.name
    assert applied(variant, work.parent) == "1: é\n"  # what was read, not what is there now
    (work / "0001-a-change-1.patch").unlink()
    by_name = found(lab, variant.name, work)
    assert (by_name.name, by_name.revisions[0].patches) == (variant.name, revision.patches)
    with pytest.raises(UsageError, match="no series '0001-a-change-1'"):
        found(lab, variant.name[:-1] + ("0" if variant.name[-1] != "0" else "1"), work)


def test_an_mbox_is_split_in_its_order_and_without_its_cover_letter(lab: Lab, work: Path) -> None:
    mbox = git(work, "format-patch", "--stdout", "--cover-letter", "main~3")
    small_lab.write(work / "My fix.mbox", mbox)
    variant = found(lab, "./My fix.mbox + config:debug", work)
    assert re.fullmatch(r"my-fix@[0-9a-f]{8} \+ config:debug", variant.name)
    patches = variant.revisions[0].patches
    assert [patch.subject for patch in patches] == [f"a: change {n}" for n in (1, 2, 3)]
    assert applied(variant, work.parent) == "3\n"
    assert "Why: naïve." in patches[0].file.read_text(encoding="utf-8")


def test_a_thread_has_replies_and_no_order(lab: Lab, work: Path) -> None:
    mails = re.split(
        r"(?m)^(?=From [0-9a-f]{40} )", git(work, "format-patch", "--stdout", "main~3")
    )
    mails = [mail for mail in mails if mail]
    quoted = "".join(f"> {line}\n" for line in mails[0].splitlines()[5:])
    reply = (
        f"{mails[0].splitlines()[0]}\nFrom: B <b@localhost>\nSubject: Re: x\n\n{quoted}\nNo.\n\n"
    )
    small_lab.write(work / "thread", "".join([mails[2], reply, mails[0], mails[1]]))
    variant = found(lab, "./thread", work)
    assert applied(variant, work.parent) == "3\n"


@pytest.mark.parametrize("tag", ["PATCH v2", "PATCHv2", "RFC v2 PATCH"])
def test_two_versions_of_a_series_are_not_stacked(lab: Lab, work: Path, tag: str) -> None:
    first = git(work, "format-patch", "--stdout", "main~3..main~1")
    second = first.replace("[PATCH ", f"[{tag} ")
    small_lab.write(work / "thread.mbox", first + second)
    with pytest.raises(UsageError, match=r"thread\.mbox holds v1 and v2 of the series") as caught:
        found(lab, "./thread.mbox", work)
    assert "b4 am" in caught.value.hint
    small_lab.write(work / "thread.mbox", second)
    variant = found(lab, "./thread.mbox", work)
    assert [patch.subject for patch in variant.revisions[0].patches] == [
        "a: change 1",
        "a: change 2",
    ]


def test_a_folder_with_two_versions_needs_a_list(lab: Lab, work: Path) -> None:
    for words in (("-1",), ("-1", "-v3")):
        git(work, "format-patch", "--quiet", "-osent", *words, "main~2")
    with pytest.raises(UsageError, match="sent holds v1 and v3 of the series") as caught:
        found(lab, "./sent", work)
    assert "file 'series'" in caught.value.hint
    small_lab.write(work / "sent/series", "v3-0001-a-change-1.patch\n")
    assert applied(found(lab, "./sent", work), work.parent) == "1: é\n"


def test_an_encoded_mail_is_decoded(lab: Lab, work: Path) -> None:
    [mail] = [git(work, "format-patch", "--stdout", "-1", "main~2")]
    head, _, body = mail.partition("\n\n")
    head = re.sub(r"(?m)^(MIME|Content).*\n?", "", head).rstrip()
    coded = base64.encodebytes(body.encode()).decode()
    mime = "Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: base64"
    small_lab.write(work / "sent.eml", f"{head}\n{mime}\n\n{coded}\n")
    assert applied(found(lab, "sent.eml", work), work.parent) == "1: é\n"


def test_folders_go_by_their_list_or_by_name(lab: Lab, work: Path) -> None:
    git(work, "format-patch", "--quiet", "--cover-letter", "-osent", "main~3")
    by_name = found(lab, "./sent", work)
    assert by_name.revisions[0].patches[0].subject == "a: change 1"
    assert applied(by_name, work.parent) == "3\n"
    small_lab.write(work / "sent/series", "# mine\n0001-a-change-1.patch -p1\n")
    listed = found(lab, "sent/", work)
    assert applied(listed, work.parent) == "1: é\n"
    assert listed.name.startswith("sent@")
    small_lab.write(work / "sent/series", "0001-a-change-1.patch\nnone.patch\n")
    with pytest.raises(UsageError, match=r"sent/series:2: no patch 'none\.patch'"):
        found(lab, "./sent", work)


def test_a_plain_diff_and_names_with_spaces_and_plusses(lab: Lab, tmp_path: Path) -> None:
    small_lab.write(tmp_path / "c++ fix + more.patch", PLAIN)
    small_lab.write(tmp_path / "other.diff", PLAIN.replace("new", "newer").replace("old", "new"))
    variant = found(lab, "base+./c++ fix + more.patch+other.diff + config:debug", tmp_path)
    assert [revision.series for revision in variant.revisions] == ["c-fix-more", "other"]
    assert variant.fragments == ("debug",)
    assert variant.revisions[0].patches[0].subject == "c-fix-more"
    assert applied(variant, tmp_path) == "newer\n"


def test_own_patches_stack_with_those_of_a_series(lab: Lab, tmp_path: Path) -> None:
    small_lab.write(tmp_path / "fix.patch", PLAIN)
    variant = found(lab, "alpha@v1 + ./fix.patch", tmp_path)
    assert variant.name.startswith("alpha@v1 + fix@")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("./none.patch", "no file or folder", "paths start at"),
        ("/nonexistent/my.patch", "no file or folder /nonexistent/my.patch", "no such file"),
        ("./word.patch", "no file or folder", "did you mean 'words.patch'?"),
        ("./empty", "no patch in this folder", "*.patch"),
        ("./words.patch", "no patch in it", "git format-patch"),
        ("words.patch + words.patch", "no patch in it", "git format-patch"),
    ],
)
def test_what_is_no_patch_is_refused(
    lab: Lab, tmp_path: Path, text: str, message: str, hint: str
) -> None:
    (tmp_path / "empty").mkdir()
    small_lab.write(tmp_path / "words.patch", "Subject: hello\n\nno diff\n")
    with pytest.raises(UsageError, match=message) as caught:
        found(lab, text, tmp_path)
    assert hint in caught.value.hint


def test_one_that_does_not_apply_names_the_users_file(lab: Lab, tmp_path: Path) -> None:
    small_lab.write(tmp_path / "fix.patch", PLAIN.replace("old", "other"))
    variant = found(lab, "./fix.patch", tmp_path)
    with pytest.raises(PatchError, match=r"a: hunk 1, line 1") as caught:
        applied(variant, tmp_path)
    assert f"0001-fix.patch of {tmp_path}/fix.patch does not apply" in str(caught.value)
    assert caught.value.hint == "rebase it on the source of linux-6.12"


def test_arms_of_a_lab_file_may_be_paths_from_its_folder(tmp_path: Path) -> None:
    file = small_lab.make(tmp_path)
    small_lab.write(tmp_path / "mine/fix.patch", PLAIN)
    small_lab.edit(file, '"alpha@v1", ', '"alpha@v1 + mine/fix.patch", ')
    lab = config.load(file, features=tmp_path / "features", cache=Cache(tmp_path / "cache"))
    assert lab.runs["main"].arms[1].name.startswith("alpha@v1 + fix@")
    small_lab.edit(file, "mine/fix.patch", "mine/fxi.patch")
    message, _ = small_lab.fault(file)
    assert message.startswith("lab.toml:31: no file or folder mine/fxi.patch")


@pytest.mark.parametrize("text", ["base", "alpha@v1", "config:debug", "a@v1 + b@v2", ""])
def test_names_of_the_lab_are_no_paths(text: str, tmp_path: Path) -> None:
    assert not any(own.is_path(part) for part in own.parts(text, tmp_path))
    assert own.parts(text, tmp_path) == [part.strip() for part in text.split("+")]
