# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab that is right becomes the values that it says, with the documented defaults."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from patchlab.config.series import subject
from patchlab.model import DebianSource, Limits, PmemDevice, Sampling
from tests.config import small_lab
from tests.config.small_lab import edit, load, write


def test_everything_is_read_and_resolved(tmp_path: Path) -> None:
    lab = load(small_lab.make(tmp_path))
    assert (lab.folder, lab.file, lab.kernels) == (
        tmp_path,
        tmp_path / "lab.toml",
        tmp_path / "kernels",
    )
    assert lab.default_run == "main"
    assert sorted(lab.bases) == ["linux-6.1", "linux-6.12"]
    base = lab.bases["linux-6.12"]
    assert base.source == DebianSource("linux-source-6.12", "usr/src/linux-source-6.12.tar.xz")
    assert (base.fragments, base.build_steps, base.reference) == (("slim", "fuse"), 100, None)
    assert lab.sampling == Sampling(4, 2008, parallel=0, samples=12, warmup=2)
    assert (lab.machine.models, lab.runs["main"].sensitivity) == ((), ())
    assert lab.limits == Limits(boot=90.5, check=60, measure=300, poweroff=30, build=3600)


def test_the_machine_has_sizes_in_bytes(tmp_path: Path) -> None:
    machine = load(small_lab.make(tmp_path)).machine
    assert (machine.memory, machine.cpus) == (2**30, 2)
    assert (machine.bench_cpu, machine.check_cpu) == ("max,-erms,-fsrm", "max")
    assert (machine.root_suite, machine.root_packages) == ("trixie", ("python3", "kmod"))
    assert machine.pmem == (
        PmemDevice("pm0", 512 * 2**20, "xfs", (), ("dax=always",)),
        PmemDevice("pm1", 512 * 2**20, "xfs", ("-m", "reflink=1"), ("dax=always",)),
    )


def test_a_run_has_canonical_arms(tmp_path: Path) -> None:
    run = load(small_lab.make(tmp_path)).runs["main"]
    assert [arm.name for arm in run.arms] == ["base", "alpha@v1", "alpha@v2 + beta@v1"]
    assert [str(revision) for revision in run.arms[2].revisions] == ["alpha@v2", "beta@v1"]
    assert {arm.base.name for arm in run.arms} == {"linux-6.12"}
    assert (run.baseline, run.features, run.title) == ("base", ("mapping",), "Main")


def test_fragments_of_a_run_are_part_of_every_arm(tmp_path: Path) -> None:
    lab = small_lab.make(tmp_path)
    edit(lab, "features =", 'fragments = ["debug"]\nfeatures =')
    run = load(lab).runs["main"]
    assert [arm.name for arm in run.arms][:2] == ["base + config:debug", "alpha@v1 + config:debug"]
    assert run.baseline == "base + config:debug"
    assert run.arms[1].fragments == ("debug",)


def test_a_series_has_its_revisions_patches_and_ledger(tmp_path: Path) -> None:
    series = load(small_lab.make(tmp_path)).series["alpha"]
    first, second = series.revisions
    assert (str(first), first.bases, first.min_context, first.about) == (
        "alpha@v1",
        ("linux-6.12",),
        3,
        "",
    )
    assert (second.bases, second.min_context, second.about) == (
        ("linux-6.12", "linux-6.1"),
        1,
        "Second",
    )
    patch = first.patches[1]
    assert (patch.file.name, patch.subject) == ("0002-two.patch", "a: two")
    assert patch.sha256 == hashlib.sha256(patch.file.read_bytes()).hexdigest()
    assert [(demand.id, demand.checks) for demand in series.ledger] == [("works", ("A1", "A99"))]


def test_a_demand_has_its_rules_and_an_answer_a_revision(tmp_path: Path) -> None:
    lab = small_lab.make(tmp_path)
    file = tmp_path / "patches/alpha/series.toml"
    small_lab.edit(file, 'checks = ["A1", "A99"]', 'rules = ["two-way", "changelog-argues:vm_ops"]')
    more = '\n[[ledger]]\nid = "all"\nwho = "x"\ndate = "2009"\ndemand = "y"\nanswered = "so"\n'
    file.write_text(f'{file.read_text()}[ledger.answered]\nv2 = "it is right"\n{more}')
    first, second = load(lab).series["alpha"].ledger
    assert (first.checks, first.rules) == ((), ("two-way", "changelog-argues:vm_ops"))
    assert first.answered == {"v2": "it is right"}
    assert second.answered == {"v1": "so", "v2": "so"}
    file.write_text(file.read_text().replace("v2 = ", "v9 = "))
    assert small_lab.fault(lab)[0] == "patches/alpha/series.toml:19: no revision 'v9'"


def test_patches_go_in_in_the_order_of_the_list(tmp_path: Path) -> None:
    lab = small_lab.make(tmp_path)
    write(tmp_path / "patches/alpha/v1/series", "0002-two.patch\n0001-one.patch\n")
    patches = load(lab).series["alpha"].revisions[0].patches
    assert [patch.subject for patch in patches] == ["a: two", "a: one"]


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("tag", ["[PATCH 0/2]", "[RFC PATCH v2 00/12]"])
def test_a_cover_letter_is_no_patch(tmp_path: Path, tag: str, listed: bool) -> None:
    lab = small_lab.make(tmp_path)
    revision = tmp_path / "patches/alpha/v1"
    head = "From 0 Mon Sep 17\nFrom: A <a@example.org>\n"
    write(
        revision / "0000-cover.patch", f"{head}Subject: {tag} alpha\n\nWhy.\n\n a | 2 +-\n-- \n2\n"
    )
    if listed:
        edit(revision / "series", "0001-", "0000-cover.patch\n0001-")
    patches = load(lab).series["alpha"].revisions[0].patches
    assert [patch.subject for patch in patches] == ["a: one", "a: two"]


def test_paths_start_at_the_folder_of_lab_toml(tmp_path: Path) -> None:
    lab = small_lab.make(tmp_path / "deep")
    (tmp_path / "deep" / "kernels").rename(tmp_path / "trees")
    edit(lab, "patches =", 'kernels = "../trees"\npatches =')
    assert load(lab).bases["linux-6.1"].file.samefile(tmp_path / "trees" / "linux-6.1.toml")


def test_subjects_are_unfolded_decoded_and_lose_their_tag() -> None:
    def of(header: str) -> str:
        return subject(f"From 0 Mon Sep 17\n{header}\n\nbody\n".encode(), "x.patch")

    assert of("Subject: [PATCH] fuse: one") == "fuse: one"
    assert of("Subject: [RFC PATCH v3 02/10] fuse: one") == "fuse: one"
    assert of("Subject: [PATCH bpf-next] [really] fuse: one") == "[really] fuse: one"
    assert of("Subject: [PATCH 1/1] fuse: refuse shared\n writable\n\tmaps") == (
        "fuse: refuse shared writable maps"
    )
    assert of("Subject: =?UTF-8?q?=5BPATCH=5D=20fuse:=20caf=C3=A9?=") == "fuse: café"
