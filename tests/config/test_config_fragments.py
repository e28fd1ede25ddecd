# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's own config fragments, and the options that a base's kernel calls otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from patchlab import config
from patchlab.building import kconfig
from patchlab.config import fragments
from patchlab.errors import BuildError, UsageError
from patchlab.model import Base, DebianSource, Options
from tests.config import small_lab
from tests.config.small_lab import edit, fault, write


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    return small_lab.make(tmp_path / "lab").parent / "kernels"


def test_every_folder_of_the_variable_is_looked_in(tmp_path: Path, kernels: Path) -> None:
    write(tmp_path / "one/mine.config", "CONFIG_M=y\n")
    write(tmp_path / "two/other.config", "CONFIG_O=y\n")
    listed = os.pathsep.join([str(tmp_path / "one"), "", str(tmp_path / "two")])
    found = fragments.index(kernels, {"PATCHLAB_CONFIG": listed})
    assert found.keys() == {"slim", "fuse", "debug", "mine", "other"}
    assert found["mine"] == tmp_path / "one/mine.config"
    assert fragments.index(kernels, {}).keys() == {"slim", "fuse", "debug"}


def test_a_name_that_is_there_twice_names_both_files(tmp_path: Path, kernels: Path) -> None:
    write(tmp_path / "one/debug.config", "CONFIG_M=y\n")
    with pytest.raises(UsageError) as caught:
        fragments.index(kernels, {"PATCHLAB_CONFIG": str(tmp_path / "one")})
    assert str(kernels / "config/debug.config") in str(caught.value)
    assert str(tmp_path / "one/debug.config") in str(caught.value)
    same = {"PATCHLAB_CONFIG": str(kernels / "config")}
    assert fragments.index(kernels, same) == fragments.index(kernels, {})


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, kernels: Path) -> None:
    with pytest.raises(UsageError, match=r"\$PATCHLAB_CONFIG: no folder .*none"):
        fragments.index(kernels, {"PATCHLAB_CONFIG": str(tmp_path / "none")})


def test_a_users_fragment_is_one_like_the_others(
    tmp_path: Path, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "one/mine.config", "CONFIG_M=y\n")
    monkeypatch.setenv("PATCHLAB_CONFIG", str(tmp_path / "one"))
    lab = small_lab.load(kernels.parent / "lab.toml")
    variant = config.find_variant(lab, "alpha@v1 + config:mine")
    assert variant.name == "alpha@v1 + config:mine"
    [file] = kconfig.fragment_files(lab.kernels, variant.fragments)
    assert [line.option for line in kconfig.read_fragment(file)] == ["M"]


# ------------------------------------------------- [options]

KCONFIG = "config NEW\n\tbool\nconfig KEPT\n\tbool\n"


def based(folder: Path, renamed: dict[str, str], absent: dict[str, str]) -> Base:
    file = folder / "newer.toml"
    lines = [f'CONFIG_{old} = "{new}"' for old, new in renamed.items()]
    more = [f'{name} = "{why}"' for name, why in absent.items()]
    write(file, "\n".join(["[options.renamed]", *lines, "[options.absent]", *more, ""]))
    source = DebianSource("p", "t")
    return Base("newer", "Newer", file, source, (), 1, options=Options(renamed, absent))


def configured(folder: Path, base: Base, fragment: str, result: str) -> kconfig.Merged:
    """Configure with a make that leaves ``result`` as olddefconfig's .config."""
    write(folder / "f.config", fragment)
    write(folder / "tree/Kconfig", KCONFIG)
    merged = kconfig.declare(kconfig.merge([kconfig.read_fragment(folder / "f.config")]), base)

    def make(target: str) -> None:
        if target == "tinyconfig":
            write(folder / "tree/.config", "")
        else:
            asked = kconfig.parse((folder / "tree/.config").read_text())
            assert asked.keys() >= {one.wanted.option for one in merged.declared}
            write(folder / "tree/.config", result)

    kconfig.configure(folder / "tree", merged, make)
    return merged


def test_a_renamed_option_is_wanted_by_its_new_name(tmp_path: Path) -> None:
    base = based(tmp_path, {"OLD": "NEW"}, {"GONE": "dropped in 6.13"})
    text = "CONFIG_OLD=y\nCONFIG_KEPT=y\nCONFIG_GONE=y\n"
    merged = configured(tmp_path, base, text, "CONFIG_NEW=y\nCONFIG_KEPT=y\n")
    assert [(w.option, w.value, w.line) for w in merged.wanted] == [
        ("KEPT", "y", 2),
        ("NEW", "y", 1),
    ]
    assert [one.where.rpartition(":")[2] for one in merged.declared] == ["2", "4"]


def test_a_base_without_declarations_wants_what_it_wanted(tmp_path: Path) -> None:
    write(tmp_path / "f.config", "CONFIG_A=y\nCONFIG_B=y\n")
    merged = kconfig.merge([kconfig.read_fragment(tmp_path / "f.config")])
    assert kconfig.declare(merged, based(tmp_path, {}, {})) == merged


@pytest.mark.parametrize(
    ("renamed", "absent", "fragment", "result", "message"),
    [
        ({"OLD": "NEW"}, {}, "CONFIG_OLD=y\n", "", "f.config:1: CONFIG_NEW: wanted y, got n"),
        ({"OLD": "NEW"}, {}, "CONFIG_OLD=y\n", "CONFIG_OLD=y\nCONFIG_NEW=y\n",
         "newer.toml:2: CONFIG_OLD is declared renamed to CONFIG_NEW, and this kernel has it"),
        ({"OLD": "NONE"}, {}, "# CONFIG_OLD is not set\n", "", "which no Kconfig file of this"),
        ({}, {"GONE": "why"}, "CONFIG_GONE=y\n", "CONFIG_GONE=y\n",
         "newer.toml:3: CONFIG_GONE is declared absent, and it is y, as "),
        ({}, {"GONE": "why"}, "CONFIG_KEPT=y\nCONFIG_GONE=y\n", "", "CONFIG_KEPT: wanted y, got n"),
    ],
)  # fmt: skip
def test_a_lost_option_and_a_declaration_out_of_date_are_errors(
    tmp_path: Path,
    renamed: dict[str, str],
    absent: dict[str, str],
    fragment: str,
    result: str,
    message: str,
) -> None:
    with pytest.raises(BuildError) as caught:
        configured(tmp_path, based(tmp_path, renamed, absent), fragment, result)
    assert message in str(caught.value)


def test_the_new_name_may_not_be_wanted_otherwise(tmp_path: Path) -> None:
    base = based(tmp_path, {"OLD": "NEW"}, {})
    with pytest.raises(UsageError, match=r"newer\.toml:2: .*wants to be n, not y"):
        configured(tmp_path, base, "CONFIG_OLD=y\n# CONFIG_NEW is not set\n", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[options.renamed]\nZ = "Y"\n', ":11: CONFIG_Z is declared and no config fragment wants"),
        ('[options.absent]\n"a b" = "why"\n', ":11: 'a b' is no option"),
        ('[options.absent]\nA = ""\n', ":11: A in [options.absent]: expected a string that is"),
        ('[options.renamed]\nA = "B"\n[options.absent]\nCONFIG_A = "x"\n', "as renamed and as"),
        ('[options.renmed]\nA = "B"\n', ":10: unknown key 'renmed' in [options]"),
    ],
)  # fmt: skip
def test_a_faulty_declaration_is_named_at_its_line(tmp_path: Path, text: str, message: str) -> None:
    lab = small_lab.make(tmp_path)
    file = tmp_path / "kernels/linux-6.12.toml"
    write(file, f"{file.read_text()}\n{text}")
    assert message in fault(lab)[0]


def test_declared_options_of_the_small_lab_load(tmp_path: Path) -> None:
    lab = small_lab.make(tmp_path)
    more = '\n[options.renamed]\nCONFIG_A = "CONFIG_Z"\n[options.absent]\nB = "why"\n'
    edit(tmp_path / "kernels/linux-6.12.toml", "[source]", f"{more}\n[source]")
    assert small_lab.load(lab).bases["linux-6.12"].options == Options({"A": "Z"}, {"B": "why"})
