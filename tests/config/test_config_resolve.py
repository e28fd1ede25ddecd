# SPDX-License-Identifier: GPL-2.0-or-later
"""What the name of a variant means, and what is said of one that means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchlab.config import find_variant, on_base, stored_name
from patchlab.errors import UsageError
from patchlab.model import Lab
from tests.config import small_lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder: Path = tmp_path_factory.mktemp("lab")
    return small_lab.load(small_lab.make(folder))


@pytest.mark.parametrize(
    ("text", "name", "fragments"),
    [
        ("base", "base", ()),
        (" base ", "base", ()),
        ("alpha@v1", "alpha@v1", ()),
        ("base + alpha@v1", "alpha@v1", ()),
        ("beta@v1+alpha@v2", "beta@v1 + alpha@v2", ()),
        ("base + config:debug", "base + config:debug", ("debug",)),
        ("config:debug + alpha@v1", "alpha@v1 + config:debug", ("debug",)),
        ("cmdline:b=2+alpha@v1+config:debug", "alpha@v1 + config:debug + cmdline:b=2", ("debug",)),
        ("base + cmdline:b.c=2,3 + cmdline:a", "base + cmdline:b.c=2,3 + cmdline:a", ()),
    ],
)
def test_names_become_canonical(lab: Lab, text: str, name: str, fragments: tuple[str, ...]) -> None:
    variant = find_variant(lab, text)
    assert (variant.name, variant.fragments) == (name, fragments)
    assert variant.base == lab.bases["linux-6.12"]
    assert find_variant(lab, variant.name) == variant


def test_a_cpu_model_comes_last_and_leaves_the_image_alone(tmp_path: Path) -> None:
    file = small_lab.make(tmp_path)
    small_lab.edit(file, "cpus = 2", 'cpus = 2\nmodels = { erms = "max", old = "qemu64" }')
    lab = small_lab.load(file)
    assert lab.machine.models == (("erms", "max"), ("old", "qemu64"))
    variant = find_variant(lab, "cpu:erms + alpha@v1 + cmdline:a")
    assert (variant.name, variant.cpu) == ("alpha@v1 + cmdline:a + cpu:erms", "erms")
    assert (variant.fragments, variant.options) == ((), ("a",))
    assert find_variant(lab, variant.name) == variant
    with pytest.raises(UsageError, match="'cpu:' comes twice"):
        find_variant(lab, "base + cpu:erms + cpu:old")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("alpha", "'alpha' names a series and no revision", "there are: alpha@v1, alpha@v2"),
        ("bse", "no variant 'bse'", "did you mean 'base'?"),
        ("", "no variant ''", "alpha@v1, alpha@v2, base, beta@old, beta@v1"),
        ("alpha@v1 +", "no variant 'alpha@v1 +'", "forms: "),
        ("alpha@v9", "no revision 'v9' of alpha", "there are: v1, v2"),
        ("alpa@v1", "no series 'alpa'", "did you mean 'alpha'? there are: alpha, beta"),
        ("beta@old", "beta@old does not apply to base 'linux-6.12'", "applies to: linux-6.1;"),
        ("beta@old", "beta@old does not apply to base 'linux-6.12'", "; or give --base linux-6.1"),
        (
            "linux-6.1 + alpha@v2",
            "'linux-6.1' in 'linux-6.1 + alpha@v2' is the",
            "--base linux-6.1",
        ),
        ("+", "no variant '+'", "quote the whole name"),
        ("alpha@v1 + alpha@v2", "alpha@v1 and alpha@v2 in", "one revision of a series"),
        ("alpha@v1 + base", "'base' comes first", "forms: "),
        ("config:dbug", "no config fragment 'dbug'", "'debug'? there are: debug, fuse, slim"),
        ("config:fuse", "base 'linux-6.12' has the config fragment 'fuse' already", "leave"),
        ("config:debug + config:debug", "'config:debug' comes twice", "once"),
        ("cmdline:a + cmdline:a", "'cmdline:a' comes twice", "once"),
        ("base + cmdline:", "'cmdline:' in 'base + cmdline:' is no kernel option", "one word"),
        ('base + cmdline:a="b c"', "'cmdline:a=\"b c\"' in", "one word"),
        ("base + cmdline:init=/bin/sh", "'cmdline:init=/bin/sh' in", "leave it out"),
        ("base + cpu:fast", "no CPU model 'fast' in [machine.models]", "no CPU model at all"),
        ("base + cmdline:rootwait", "'cmdline:rootwait' in", "leave it out"),
    ],
)
def test_what_does_not_exist_is_named_with_what_does(
    lab: Lab, text: str, message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        find_variant(lab, text)
    assert str(caught.value).startswith(message)
    assert hint in caught.value.hint


def test_a_command_may_put_its_variants_on_another_base(lab: Lab) -> None:
    other = on_base(lab, "linux-6.1")
    variant = find_variant(other, "beta@old + alpha@v2")
    assert (variant.name, variant.base) == ("beta@old + alpha@v2", lab.bases["linux-6.1"])
    assert find_variant(other, "base").base.name == "linux-6.1"
    with pytest.raises(UsageError, match=r"alpha@v1 does not apply to base 'linux-6\.1'"):
        find_variant(other, "alpha@v1")
    with pytest.raises(UsageError, match=r"no base 'linux-6\.2'") as caught:
        on_base(lab, "linux-6.2")
    assert "there are: linux-6.1, linux-6.12" in caught.value.hint


def test_a_stored_arm_on_another_base_is_found_by_any_of_its_names(lab: Lab) -> None:
    assert stored_name(lab, "base + beta@old", ["beta@old"]) == "beta@old"
