# SPDX-License-Identifier: GPL-2.0-or-later
# ruff: noqa: E501 (one case a line reads best)
"""Every fault in a lab's files is named with its file, its line and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config import small_lab
from tests.config.small_lab import edit, fault, write

L, K, A = "lab.toml", "kernels/linux-6.12.toml", "patches/alpha/series.toml"

# fmt: off
# file, old text, new text, message, part of the hint
UNKNOWN_KEYS = [
    (L, "memory =", "memry =", "lab.toml:5: unknown key 'memry' in [machine]", "'memory'"),
    (L, "default =", "defualt =", "lab.toml:1: unknown key 'defualt' at the top", "'default'"),
    (L, "[sampling]", "[samplng]", "lab.toml:22: unknown key 'samplng' at the top", "'sampling'"),
    (L, "[machine.root]", "[machine.rot]", "lab.toml:8: unknown key 'rot' in [machine]", "'root'"),
    (L, "mkfs =", "mkf =", "lab.toml:20: unknown key 'mkf' in [[machine.pmem]]", "'mkfs'"),
    (L, "features =", "feature =", "lab.toml:32: unknown key 'feature' in [run.main]", "'features'"),
    (L, "boot = 90.5", "zzz = 1", "lab.toml:26: unknown key 'zzz' in [limits]", "known keys: boot"),
    (K, "tarball =", "tarbal =", f"{K}:8: unknown key 'tarbal' in [source]", "'tarball'"),
    (A, "min_context =", "context =", f"{A}:9: unknown key 'context' in [revision.v2]", "'min_context'"),
    (A, "demand =", "demands =", f"{A}:16: unknown key 'demands' in [[ledger]]", "'demand'"),
]
TYPES_AND_RANGES = [
    (L, "cpus = 2", 'cpus = "2"', "lab.toml:6: cpus in [machine]: expected a whole number of 1 or more, got '2'"),
    (L, "cpus = 2", "cpus = 0", "lab.toml:6: cpus in [machine]: expected a whole number of 1 or more, got 0"),
    (L, "cpus = 2", "cpus = true", "lab.toml:6: cpus in [machine]: expected a whole number of 1 or more, got true"),
    (L, '"1G"', '"1GB"', "lab.toml:5: memory in [machine]: expected a size as a string: a number and K, M, G or T, as in \"512M\", got '1GB'"),
    (L, '"1G"', '"64M"', "lab.toml:5: memory in [machine]: 64M is too little for the guest's root and Python"),
    (L, "blocks = 4", "blocks = 0", "lab.toml:23: blocks in [sampling]: expected a whole number of 1 or more, got 0"),
    (L, "boot = 90.5", "boot = 0", "lab.toml:26: boot in [limits]: expected seconds: a number above 0, up to 86400 (a day), got 0"),
    (L, "boot = 90.5", "boot = inf", "lab.toml:26: boot in [limits]: expected seconds: a number above 0, up to 86400 (a day), got inf"),
    (L, '  "kmod",', "  7,", "lab.toml:11: packages[1] in [machine.root]: expected a string that is not empty, got 7"),
    (L, '["patches"]', '"patches"', "lab.toml:2: patches at the top: expected an array of one string or more, got 'patches'"),
    (L, '["patches"]', "[]", "lab.toml:2: patches at the top: expected an array of one string or more, got an empty array"),
    (L, "[limits]\nboot = 90.5", "[[limits]]", "lab.toml:25: limits at the top: expected a table, got an array"),
    (L, '"pm1"', '"pm0"', "lab.toml:19: two pmem devices are named 'pm0'"),
    (L, '"512M"', '"299M"', "lab.toml:16: size in [[machine.pmem]]: 299M is too small for XFS"),
    (L, '"512M"', '"301M"', "lab.toml:16: size in [[machine.pmem]]: 301M is not a multiple of 2M"),
    (L, 'title = "Main"', 'title = "Main"\ndisk = "299M"', "lab.toml:30: disk in [run.main]: 299M is too small for XFS"),
    (L, "mkfs =", 'filesystem = "zfs"\nmkfs =', "lab.toml:20: filesystem in [[machine.pmem]]: expected one of 'xfs', 'ext4', got 'zfs'"),
    (K, '"debian"', '"svn"', f"{K}:6: kind in [source]: expected one of 'debian', 'deb', 'tarball', 'git', 'directory', 'image', got 'svn'"),
    (K, '"debian"', '"git"', f"{K}:7: unknown key 'package' in [source]"),
    (K, 'kind = "debian"', "", f"{K}:5: 'kind' is missing in [source]"),
    (K, 'kind = "debian"', "kind = 7", f"{K}:6: kind in [source]: expected one of 'debian', 'deb', 'tarball', 'git', 'directory', 'image', got 7"),
    (K, '"debian"\npackage = "linux-source-6.12"', '"tarball"\nfile = "x"', f"{K}:8: unknown key 'tarball' in [source]"),
    (K, "[source]", "source = 7\n[sauce]", f"{K}:5: source at the top: expected a table, got 7"),
    (K, '["slim", "fuse"]', "[]", f"{K}:2: fragments at the top: a base that is built needs config fragments"),
    (K, 'title = "Linux 6.12"', "", f"{K}:1: 'title' is missing at the top"),
    (L, 'base = "linux-6.12"\n', "", "lab.toml:28: 'base' is missing in [run.main]"),
    (L, 'name = "pm1"\n', "", "lab.toml:18: 'name' is missing in [[machine.pmem]]"),
    (A, "min_context = 1", "min_context = 4", f"{A}:9: min_context in [revision.v2]: expected a whole number from 1 to 3, got 4"),
    (A, '"2009-06"', "2009-06-23", f"{A}:15: date in [[ledger]]: expected a date as a string"),
    (A, '"A99"]', '"A 9"]', f"{A}:17: checks[1] in [[ledger]]: expected a word of letters, digits and '_', got 'A 9'"),
]
NAMES = [
    (L, '"main"\n', '"mian"\n', "lab.toml:1: no run 'mian'", "did you mean 'main'? there are: main"),
    (L, '"linux-6.12"', '"linux-6.122"', "lab.toml:30: no base 'linux-6.122'", "did you mean 'linux-6.12'? there are: linux-6.1, linux-6.12"),
    (L, '"alpha@v1"', '"alhpa@v1"', "lab.toml:31: no series 'alhpa'", "did you mean 'alpha'? there are: alpha, beta"),
    (L, '"alpha@v1"', '"alpha@v3"', "lab.toml:31: no revision 'v3' of alpha", "there are: v1, v2"),
    (L, '"alpha@v1"', '"beta@old"', "lab.toml:31: beta@old does not apply to base 'linux-6.12'", "it applies to: linux-6.1; for linux-6.12 there are: beta@v1"),
    (L, '"alpha@v1"', '"base"', "lab.toml:31: arm 'base' comes twice", "once"),
    (L, '"alpha@v1"', '"base + alpha@v2+beta@v1"', "lab.toml:31: arm 'alpha@v2 + beta@v1' comes twice", "once"),
    (L, '["base", ', "[", "lab.toml:28: the baseline 'base' is not among the arms of run 'main'", "alpha@v1, alpha@v2 + beta@v1"),
    (L, "features =", 'baseline = "beta@v1"\nfeatures =', "lab.toml:32: the baseline 'beta@v1' is not among the arms of run 'main'", "base, alpha@v1"),
    (L, '["mapping"]', '["maping"]', "lab.toml:32: no feature 'maping'", "did you mean 'mapping'? there are: mapping, mounting"),
    (L, '["mapping"]', '["mapping_rig"]', "lab.toml:32: no feature 'mapping_rig'", "there are: mapping, mounting"),
    (L, '["mapping"]', '["mapping", "mapping"]', "lab.toml:32: 'mapping' comes twice", "once"),
    (L, "features =", 'fragments = ["debgu"]\nfeatures =', "lab.toml:32: no config fragment 'debgu'", "did you mean 'debug'? there are: debug, fuse, slim"),
    (L, "features =", 'fragments = ["fuse"]\nfeatures =', "lab.toml:32: base 'linux-6.12' has the config fragment 'fuse' already", "leave"),
    (L, "[run.main]", '[run."../x"]', "lab.toml:28: '../x' is no name for a run", "lower-case"),
    (L, '["patches"]', '["patches", "more"]', "lab.toml:2: no folder more", "lab.toml"),
    (K, '"fuse"]', '"fsue"]', f"{K}:2: no config fragment 'fsue'", "did you mean 'fuse'?"),
    (A, '["linux-6.12"]', '["linux-6.2"]', f"{A}:5: no base 'linux-6.2'", "there are: linux-6.1, linux-6.12"),
    (A, '"mapping"', '"mappings"', f"{A}:2: no feature 'mappings'", "did you mean 'mapping'?"),
    (A, "[revision.v2]", "[revision.v3]", f"{A}:1: folder 'v2' is not among the revisions", ""),
    (A, "[revision.v1]", '[revision.v3]\nbases = ["linux-6.1"]\n[revision.v1]', f"{A}:4: revision 'v3' has no folder patches/alpha/v3", "'series'"),
    (A, "[[ledger]]", '[[ledger]]\nid = "works"\nwho = "x"\ndate = "2009"\ndemand = "y"\n\n[[ledger]]', f"{A}:19: demand 'works' exists twice", ""),
]
CPUS, TITLE = "cpus = 2", 'title = "Main"'
NAMES += [
    (L, "blocks = 4", "looks = [5]", "lab.toml:23: looks in [sampling]: 1 of them", "2 to 10 looks"),
    (L, "blocks = 4", f"looks = {list(range(1, 12))}", "lab.toml:23: looks in [sampling]: 11 of them", "2 to 10"),
    (L, "blocks = 4", "looks = [\n5,\n10,\n10,\n]", "lab.toml:26: looks in [sampling]: 10 does not come after 10", "rise"),
    (L, CPUS, 'cpus = 2\nmodels = { "a b" = "max" }', "lab.toml:7: 'a b' is no name for a CPU model", "lower-case"),
    (L, TITLE, f'{TITLE}\nsensitivity = ["erms"]', "lab.toml:30: no CPU model 'erms' in [machine.models]", "no CPU model at all"),
    (L, '"alpha@v1"', '"alpha@v1 + cpu:erms"', "lab.toml:31: no CPU model 'erms' in [machine.models]", "no CPU model at all"),
]
TYPES_AND_RANGES += [
    (L, "blocks = 4", "looks = 5", "lab.toml:23: looks in [sampling]: expected an array"),
    (L, "blocks = 4", "looks = [0, 5]", "lab.toml:23: looks[0] in [sampling]: expected a whole number of 1 or more, got 0"),
    (L, CPUS, 'cpus = 2\nmodels = { a = "" }', "lab.toml:7: a in [machine.models]: expected a string that is not empty"),
]
LEDGER = 'checks = ["A1", "A99"]'
NAMES += [
    (A, LEDGER, 'rules = ["chekpatch"]', f"{A}:17: no static rule 'chekpatch'", "did you mean 'checkpatch'?"),
    (A, LEDGER, 'rules = [\n"two-way",\n"checkpatch:x"]', f"{A}:19: static rule 'checkpatch' takes no argument", "write checkpatch"),
    (A, LEDGER, 'rules = ["changelog-argues"]', f"{A}:17: static rule 'changelog-argues' needs an argument", "changelog-argues:TOPIC"),
    (A, LEDGER, 'answered = { v1 = "so", v3 = "no" }', f"{A}:17: no revision 'v3'", "there are: v1, v2"),
]
TYPES_AND_RANGES += [
    (A, LEDGER, 'rules = ["check patch"]', f"{A}:17: rules[0] in [[ledger]]: expected the name of a static rule, or name:argument, got 'check patch'"),
    (A, LEDGER, "answered = 7", f"{A}:17: answered in [[ledger]]: expected a string, or a table of revision = string, got 7"),
    (A, LEDGER, 'answered = { v1 = "" }', f"{A}:17: answered in [[ledger]]: expected a string, or a table of revision = string, got a table"),
]
# fmt: on
SYNTAX = [
    ("cpus = 2", "cpus = ", "lab.toml:6: not TOML: Invalid value"),
    ("[sampling]", "[sampling", "lab.toml:22: not TOML: "),
    ("blocks = 4", "blocks = 4\nblocks = 5", "lab.toml:24: not TOML: Cannot overwrite a value"),
    ('["mapping"]', '["mapping"', "lab.toml:32: not TOML: "),
]


@pytest.mark.parametrize(("file", "old", "new", "message", "hint"), UNKNOWN_KEYS)
def test_an_unknown_key_is_named_with_the_nearest_known_one(
    tmp_path: Path, file: str, old: str, new: str, message: str, hint: str
) -> None:
    lab = small_lab.make(tmp_path)
    edit(tmp_path / file, old, new)
    seen, remedy = fault(lab)
    assert seen == message
    assert hint in remedy


def test_unknown_keys_in_inline_tables_arrays_and_dotted_keys(tmp_path: Path) -> None:
    lab = small_lab.make(tmp_path)
    head, _, tail = small_lab.LAB.partition("[machine]")
    run = tail[tail.index("[run.main]") :]
    write(lab, head + 'machine = { cpus = 1, root = { siute = "x" } }\n' + run)
    assert fault(lab) == (
        "lab.toml:4: unknown key 'siute' in [machine.root]",
        "did you mean 'suite'?",
    )
    pmem = (
        'machine.pmem = [\n  { name = "a" },  # { szie = 1 }\n  { name = "b", szie = "1G" },\n]\n'
    )
    write(lab, head + pmem + run)
    assert fault(lab)[0] == "lab.toml:6: unknown key 'szie' in [[machine.pmem]]"
    write(lab, head + "[machine]\ncpus = 1\nroot . 'suit'=1\n" + run)
    assert fault(lab)[0] == "lab.toml:6: unknown key 'suit' in [machine.root]"


@pytest.mark.parametrize(("file", "old", "new", "message"), TYPES_AND_RANGES)
def test_a_wrong_type_or_range_says_what_was_expected(
    tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    lab = small_lab.make(tmp_path)
    edit(tmp_path / file, old, new)
    assert fault(lab)[0].startswith(message)


@pytest.mark.parametrize(("file", "old", "new", "message", "hint"), NAMES)
def test_a_name_that_does_not_exist_lists_those_that_do(
    tmp_path: Path, file: str, old: str, new: str, message: str, hint: str
) -> None:
    lab = small_lab.make(tmp_path)
    edit(tmp_path / file, old, new)
    seen, remedy = fault(lab)
    assert seen == message
    assert hint in remedy


@pytest.mark.parametrize(("old", "new", "message"), SYNTAX)
def test_a_syntax_error_has_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    lab = small_lab.make(tmp_path)
    edit(lab, old, new)
    assert fault(lab)[0].startswith(message)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    lab = small_lab.make(tmp_path)
    lab.write_bytes(b'default = "main"\n# caf\xe9\n')
    assert fault(lab) == ("lab.toml:2: not UTF-8", "save it as UTF-8")
    lab.unlink()
    assert fault(lab)[0] == "lab.toml: no such file"
    lab.mkdir()
    seen, remedy = fault(lab)
    assert seen == "lab.toml: Is a directory"
    assert "--lab path/to/lab.toml" in remedy


def test_a_folder_without_series_toml_is_not_left_out_in_silence(tmp_path: Path) -> None:
    lab = small_lab.make(tmp_path)
    (tmp_path / "patches" / "gamma").mkdir()
    assert fault(lab)[0] == "patches/gamma: no series.toml"


def test_one_series_in_two_folders(tmp_path: Path) -> None:
    lab = small_lab.make(tmp_path)
    edit(lab, '["patches"]', '["patches", "more"]')
    small_lab.make(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "patches").rename(tmp_path / "more")
    seen, remedy = fault(lab)
    assert seen == "more/alpha/series.toml: series 'alpha' exists twice"
    assert remedy.endswith("patches/alpha/series.toml")


@pytest.mark.parametrize(
    ("order", "message", "hint"),
    [
        ("0001-one.patch\n0002-tow.patch\n", ":2: no patch '0002-tow.patch' in this folder", "'0002-two.patch'"),
        ("0001-one.patch\n", ": '0002-two.patch' is in the folder and not listed", "list it"),
        ("0001-one.patch\n0002-two.patch\n0001-one.patch\n", ":3: '0001-one.patch' is listed twice", "once"),
        ("../v2/0001-one.patch\n", ":1: no patch '../v2/0001-one.patch' in this folder", "0001-one.patch"),
    ],
)  # fmt: skip
def test_the_list_of_patches_and_the_folder_must_agree(
    tmp_path: Path, order: str, message: str, hint: str
) -> None:
    lab = small_lab.make(tmp_path)
    write(tmp_path / "patches/alpha/v1/series", order)
    seen, remedy = fault(lab)
    assert seen == f"patches/alpha/v1/series{message}"
    assert hint in remedy


def test_a_revision_without_list_without_patches_and_a_patch_without_subject(
    tmp_path: Path,
) -> None:
    lab = small_lab.make(tmp_path)
    revision = tmp_path / "patches/alpha/v1"
    patch = revision / "0001-one.patch"
    write(patch, "diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n-old\n+new\n")
    assert fault(lab)[0].startswith("patches/alpha/v1/0001-one.patch: no Subject: line")
    for file in revision.glob("*.patch"):
        file.unlink()
    write(revision / "series", "# nothing yet\n")
    assert fault(lab)[0] == "patches/alpha/v1/series: lists no patch"
    (revision / "series").unlink()
    assert fault(lab)[0] == "patches/alpha/v1/series: no such file"


def test_an_mbox_in_the_folder_of_a_revision_is_not_called_absent(tmp_path: Path) -> None:
    lab = small_lab.make(tmp_path)
    revision = tmp_path / "patches/alpha/v1"
    (revision / "0001-one.patch").rename(revision / "two.mbox")
    (revision / "0002-two.patch").unlink()
    write(revision / "series", "two.mbox\n")
    seen, remedy = fault(lab)
    assert seen == "patches/alpha/v1/series:1: 'two.mbox' is here, but only *.patch counts"
    assert "git mailsplit" in remedy
    assert f'runner.py check "base + {revision}/two.mbox"' in remedy


def test_a_patch_without_a_diff_is_refused_unless_it_is_a_cover_letter(tmp_path: Path) -> None:
    lab = small_lab.make(tmp_path)
    patch = tmp_path / "patches/alpha/v1/0002-two.patch"
    write(patch, small_lab.PATCH.partition("diff --git")[0].format(tag="2/2", subject="a: two"))
    assert fault(lab)[0] == "patches/alpha/v1/0002-two.patch: no diff in it"


def test_places_are_told_from_the_current_folder_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = small_lab.make(tmp_path / "lab")
    edit(tmp_path / K.replace("kernels", "lab/kernels"), "[source]", "[sauce]")
    monkeypatch.chdir(tmp_path / "lab")
    assert fault(Path("lab.toml"))[0] == f"{K}:5: unknown key 'sauce' at the top"
    monkeypatch.chdir(tmp_path)
    assert fault(lab)[0] == f"lab/{K}:5: unknown key 'sauce' at the top"
