# SPDX-License-Identifier: GPL-2.0-or-later
"""A build goes on from whichever kept tree leaves least to be compiled."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from patchlab import config
from patchlab.building import build
from patchlab.model import AppliedPatch, Fit
from patchlab.paths import Cache
from patchlab.progress import Silent

HEADER, ONE, TWO = "include/a.h", "fs/one.c", "fs/two.c"
PLAIN = {HEADER: "plain", ONE: "one", TWO: "two"}


@pytest.fixture
def shop(tmp_path: Path) -> build.Shop:
    lab = config.load(Path(__file__).parents[2] / "lab.toml")
    return build.Shop(lab, Cache(tmp_path / "cache"), Silent(), 1)


def filled(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def patch(name: str, *files: str) -> AppliedPatch:
    return AppliedPatch(name, "v2", "0001.patch", "0", Fit.EXACT, files)


def kept(
    shop: build.Shop, key: str, base: str, texts: dict[str, str], series: str = "mine"
) -> Path:
    """A built tree of three objects in the cache, which patches have made ``texts`` in."""
    deps = "deps := \\\n  fs/{}.c \\\n  " + HEADER + " \\\n"
    objects = {f"fs/.{name}.o.cmd": deps.format(name) for name in ("one", "two", "three")}
    entry = shop.cache.room("trees") / key
    filled(entry / "tree", {**PLAIN, **objects, **texts})
    built = build.Built(1.0, 2, tuple(texts), (series,), base)
    (entry / "built.json").write_bytes(msgspec.json.encode(built))
    return entry / "tree"


def test_the_next_revision_goes_on_from_the_last(shop: build.Shop, tmp_path: Path) -> None:
    base = kept(shop, "base", "", {})
    first = kept(shop, "first", "base", {HEADER: "patched", TWO: "first"})
    kept(shop, "worse", "base", {HEADER: "another", ONE: "next"})
    kept(shop, "alien", "other-base", {HEADER: "patched", ONE: "next"})
    folder = filled(tmp_path / "new", {**PLAIN, HEADER: "patched", ONE: "next"})

    found = build.start_of(base, folder, (patch("mine", HEADER, ONE),), shop)

    assert found.folder == first
    assert found.patched == (ONE, TWO, HEADER)
    assert found.changed == (ONE, TWO)


def test_without_a_changed_header_the_base_is_good_enough(shop: build.Shop, tmp_path: Path) -> None:
    base = kept(shop, "base", "", {})
    kept(shop, "same", "base", {ONE: "next"})
    folder = filled(tmp_path / "new", {**PLAIN, ONE: "next"})

    found = build.start_of(base, folder, (patch("mine", ONE, TWO),), shop)

    assert (found.folder, found.changed) == (base, (ONE,))


def test_a_tree_that_leaves_as_much_to_do_is_no_better(shop: build.Shop, tmp_path: Path) -> None:
    base = kept(shop, "base", "", {})
    kept(shop, "other", "base", {HEADER: "other"})
    folder = filled(tmp_path / "new", {**PLAIN, HEADER: "new"})
    assert build.start_of(base, folder, (patch("mine", HEADER),), shop).folder == base


@pytest.mark.parametrize(("series", "taken"), [(("mine", "first"), True), (("mine",), False)])
def test_what_another_series_did_to_its_tree_reaches_no_kernel_without_it(
    shop: build.Shop, tmp_path: Path, series: tuple[str, ...], taken: bool
) -> None:
    base = kept(shop, "base", "", {})
    first = kept(shop, "first", "base", {HEADER: "patched"}, series="first")
    folder = filled(tmp_path / "new", {**PLAIN, HEADER: "patched", ONE: "next"})
    patches = tuple(patch(one, HEADER, ONE) for one in series)
    assert build.start_of(base, folder, patches, shop).folder == (first if taken else base)


def test_a_damaged_tree_is_passed_over(shop: build.Shop, tmp_path: Path) -> None:
    base = kept(shop, "base", "", {})
    (kept(shop, "first", "base", {HEADER: "new"}).parent / "built.json").write_text("{")
    folder = filled(tmp_path / "new", {**PLAIN, HEADER: "new"})
    assert build.start_of(base, folder, (patch("mine", HEADER),), shop).folder == base
