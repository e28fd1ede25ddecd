# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchlab.building import kconfig
from patchlab.building.kconfig import Differences, Scope, Wanted
from patchlab.errors import BuildError, UsageError

KERNELS = Path(__file__).parents[2] / "kernels"


def fragment(folder: Path, name: str, text: str) -> tuple[Wanted, ...]:
    file = folder / f"{name}.config"
    file.write_text(text)
    return kconfig.read_fragment(file)


def test_a_config_is_parsed() -> None:
    text = """#
# Automatically generated file; DO NOT EDIT.
# Linux/x86 6.12.117 Kernel Configuration
#
CONFIG_CC_VERSION_TEXT="gcc (Debian 12.2.0-14+deb12u1) 12.2.0"
CONFIG_GCC_VERSION=120200
# CONFIG_WERROR is not set
CONFIG_LOG_BUF_SHIFT=17
CONFIG_BUILD_SALT=""
CONFIG_DEFAULT="a = b # c"
"""
    assert kconfig.parse(text) == {
        "CC_VERSION_TEXT": '"gcc (Debian 12.2.0-14+deb12u1) 12.2.0"',
        "GCC_VERSION": "120200",
        "WERROR": "n",
        "LOG_BUF_SHIFT": "17",
        "BUILD_SALT": '""',
        "DEFAULT": '"a = b # c"',
    }


def test_every_fragment_of_the_lab_can_be_read_and_agrees_with_its_base() -> None:
    names = ("hotpath", "guest", "pmem", "fuse", "xfs")
    fragments = [kconfig.read_fragment(f) for f in kconfig.fragment_files(KERNELS, names)]
    assert all(fragments)
    assert kconfig.merge(fragments).conflicts == ()
    for file in (KERNELS / "config").glob("*.config"):
        assert kconfig.read_fragment(file), file


@pytest.mark.parametrize("line", ["CONFIG_X", "X=y", "CONFIG_X y", "CONFIG_X-Y=y", "CONFIG_X =y"])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError, match=r"bad\.config:3: not a line of a \.config"):
        fragment(tmp_path, "bad", f"# a comment\nCONFIG_A=y\n{line}\n")


def test_the_later_fragment_wins_and_a_conflict_is_reported(tmp_path: Path) -> None:
    base = fragment(tmp_path, "base", "CONFIG_A=y\nCONFIG_B=17\nCONFIG_C=y\n")
    debug = fragment(tmp_path, "debug", "# CONFIG_A is not set\nCONFIG_C=y\nCONFIG_D=0x1\n")
    merged = kconfig.merge([base, debug])
    assert {line.option: line.value for line in merged.wanted} == {
        "A": "n",
        "B": "17",
        "C": "y",
        "D": "0x1",
    }
    [(earlier, later)] = merged.conflicts
    assert str(earlier).endswith("base.config:1")
    assert str(later).endswith("debug.config:1")


def test_lost_options_are_named_and_an_absent_one_counts_as_not_set(tmp_path: Path) -> None:
    wanted = fragment(
        tmp_path, "f", "CONFIG_XFS_FS=y\n# CONFIG_GONE is not set\nCONFIG_HZ=250\nCONFIG_OK=y\n"
    )
    have = kconfig.parse("# CONFIG_XFS_FS is not set\nCONFIG_HZ=100\nCONFIG_OK=y\n")
    found = [(lost.wanted.option, lost.got) for lost in kconfig.lost(wanted, have)]
    assert found == [("XFS_FS", "n"), ("HZ", "100")]


options = st.dictionaries(
    st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True),
    st.sampled_from(["y", "n", "17", "0x1", '"text"']),
    max_size=8,
)


@given(options, options)
def test_overlay_gives_exactly_the_wanted_values_over_the_old_ones(
    old: dict[str, str], new: dict[str, str]
) -> None:
    text = "\n".join(kconfig.config_line(*item) for item in old.items())
    wanted = [Wanted(name, value, Path("f"), 1) for name, value in new.items()]
    result = kconfig.overlay(text, wanted)
    assert kconfig.parse(result) == old | new
    assert len([line for line in result.splitlines() if line]) == len(old | new)


KCONFIG = """
config SLUB_TINY
\tbool "Configure for minimal memory footprint"

config KASAN
\tbool "KASAN"
\tdepends on (HAVE_KASAN && \\
\t\tCC_HAS_KASAN) && !SLUB_TINY
\tdepends on 64BIT
\thelp
\t  depends on nothing else
"""


def test_configure_names_each_lost_option_its_line_and_what_it_depends_on(
    tmp_path: Path,
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "Kconfig").write_text(KCONFIG)
    wanted = fragment(tmp_path, "f", "CONFIG_KASAN=y\nCONFIG_NO_SUCH=y\nCONFIG_SLUB_TINY=y\n")

    def make(target: str) -> None:  # as the kernel's would do with this Kconfig
        if target == "tinyconfig":
            (tree / ".config").write_text("# CONFIG_KASAN is not set\nCONFIG_OTHER=y\n")
        else:
            text = (tree / ".config").read_text()
            assert "CONFIG_KASAN=y" in text
            (tree / ".config").write_text("CONFIG_OTHER=y\nCONFIG_SLUB_TINY=y\n")

    with pytest.raises(BuildError) as caught:
        kconfig.configure(tree, kconfig.merge([wanted]), make)
    message = str(caught.value)
    assert "2 wanted option(s)" in message
    assert "f.config:1: CONFIG_KASAN: wanted y, got n" in message
    assert "depends on (HAVE_KASAN && \\ CC_HAS_KASAN) && !SLUB_TINY and 64BIT" in message
    assert "f.config:2: CONFIG_NO_SUCH: wanted y, got n; no Kconfig file" in message
    assert "SLUB_TINY: wanted" not in message


def test_a_config_that_is_a_link_out_of_the_tree_is_neither_written_nor_read(
    tmp_path: Path,
) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.write_text("CONFIG_A=y\n")

    def make(_: str) -> None:
        (tree / ".config").symlink_to(outside)

    with pytest.raises(BuildError, match=r"no file \.config in its tree"):
        kconfig.configure(tree, kconfig.merge([]), make)
    kconfig.replace_file(tree / ".config", "mine")
    assert outside.read_text() == "CONFIG_A=y\n"
    assert (tree / ".config").read_text() == "mine"


def test_the_reference_comparison_finds_what_is_unexplained_and_what_is_stale(
    tmp_path: Path,
) -> None:
    (tmp_path / "mm").mkdir()
    (tmp_path / "mm" / "Kconfig").write_text(
        "config SLUB_TINY\n\tbool\nmenuconfig SWAP\n\tbool\nconfig KSM\n\tbool\n"
        "config ZSWAP\n\tbool\nconfig CC_HAS_X\n\tbool\nconfig FUSE\n\ttristate\n"
    )
    scope = Scope(files=("mm/**/Kconfig*",), probed=("CC_*",))
    defined = kconfig.symbols(tmp_path, scope)
    assert defined.keys() == {"SLUB_TINY", "SWAP", "KSM", "ZSWAP", "FUSE"}
    explained = kconfig.Difference(reason="because", options=("KSM", "SWAP"))
    compared = kconfig.compare_reference(
        defined,
        {"SLUB_TINY": "y", "SWAP": "y", "FUSE": "y"},
        {"SWAP": "y", "KSM": "y", "FUSE": "m"},
        Differences(scope=scope, difference=(explained,)),
    )
    [unexplained] = compared.unexplained
    assert (unexplained.option, unexplained.have, unexplained.reference) == ("SLUB_TINY", "y", "n")
    assert unexplained.file == "mm/Kconfig"
    assert compared.stale == ("SWAP",)


def test_every_difference_has_a_reason_and_is_named_once() -> None:
    differences = kconfig.read_differences(KERNELS / "config" / "differences.toml")
    names = [option for entry in differences.difference for option in entry.options]
    assert len(names) == len(set(names))
    assert all(entry.reason for entry in differences.difference)


@pytest.mark.parametrize(
    ("files", "may"),
    [
        (["fs/fuse/file.c", "include/uapi/linux/fuse.h", "fs/fuse/Makefile"], False),
        (["Documentation/filesystems/fuse.rst", "arch/x86/entry/entry_64.S"], False),
        (["fs/fuse/file.c", "fs/fuse/Kconfig"], True),
        (["lib/Kconfig.debug"], True),
        (["Makefile"], True),
        (["arch/x86/Makefile"], True),
        (["scripts/kconfig/confdata.c"], True),
        (["arch/x86/configs/tiny.config"], True),
        (["fs/fuse/generate.sh"], True),
    ],
)
def test_a_patch_that_may_change_the_config_has_it_made_anew(files: list[str], may: bool) -> None:
    assert kconfig.may_change(files) is may


def test_a_whole_config_is_taken_without_its_modules(tmp_path: Path) -> None:
    theirs = '# Linux\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D="m"\nCONFIG_E=12\n'
    start = kconfig.without_modules(theirs)
    assert kconfig.parse(start) == {"A": "y", "B": "n", "C": "n", "D": '"m"', "E": "12"}
    tree = tmp_path / "tree"
    tree.mkdir()
    targets: list[str] = []
    wanted = fragment(tmp_path, "f", "CONFIG_B=y\n")
    kconfig.configure(tree, kconfig.merge([wanted]), targets.append, start)
    assert targets == ["olddefconfig"]  # what tinyconfig leaves out is what the whole one has
    assert kconfig.parse((tree / ".config").read_text()) == kconfig.parse(start) | {"B": "y"}
