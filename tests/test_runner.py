# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line as a user types it: what it says, where, and with which exit code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from patchlab.commands import VERBS, load

ROOT = Path(__file__).parents[1]


def runner(
    *words: str, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "runner.py"), *words],
        cwd=cwd,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """lab.toml with its data, to be broken; and an empty results folder beside it."""
    for name in ("kernels", "patches"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "lab.toml", tmp_path / "lab.toml")
    return tmp_path


def test_every_verb_has_an_example_of_itself() -> None:
    for name in VERBS:
        verb = load(name)
        assert verb.EXAMPLE.startswith(f"runner.py {name}")
        assert verb.HELP


def test_help_shows_the_example() -> None:
    said = runner("compare", "--help")
    assert said.returncode == 0
    assert "example: runner.py compare base fuse-writable-mmap@control" in said.stdout


def test_list_as_json_says_what_can_be_run(copy: Path) -> None:
    said = runner("--lab", str(copy / "lab.toml"), "list", "--json")
    assert said.returncode == 0, said.stderr
    lists = json.loads(said.stdout)
    assert lists["format"] == "patchlab-list/1"
    (run,) = [run for run in lists["runs"] if run["default"]]
    revisions = [f"fuse-writable-mmap@{name}" for name in ("control", "v2", "v3")]
    assert run["arms"] == ["base", *revisions]
    checks = {check["id"]: check for check in lists["checks"]}
    assert {"B1", "B2", "B3", "B4", "B5", "B11", "B12", "B16"} <= set(checks)
    assert checks["B1"]["seen_red"] == "fuse-writable-mmap@control"
    assert all(metric["unit"] for metric in lists["metrics"])
    assert lists["stored"] == []


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["build", "bsae"], ["no variant 'bsae'", "there are:", "base"]),
        (["build", "fuse-writable-mmap@v9"], ["'v9'", "control"]),
        (["build", "fuse-writeable-mmap@control"], ["did you mean 'fuse-writable-mmap'?"]),
        (["run", "fuse"], ["no run 'fuse'", "fuse-writable-mmap"]),
        (["bench", "base", "--feature", "fuse"], ["no feature 'fuse'", "fuse_writable_mmap"]),
        (
            ["check", "base", "--feature", "map_direct_rig"],
            ["did you mean 'map_direct'?", ": fuse_direct_mmap, fuse_writable_mmap, map_direct, v"],
        ),
        (["check", "base + config:debgu"], ["debgu", "did you mean 'debug'?"]),
    ],
)
def test_names_that_do_not_exist_are_answered_with_those_that_do(
    words: list[str], parts: list[str]
) -> None:
    said = runner(*words)
    assert said.returncode == 2
    for part in parts:
        assert part in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("verb", ["build", "boot", "check", "bench", "calibrate", "shell", "gdb"])
def test_every_verb_that_takes_a_variant_takes_its_base(verb: str) -> None:
    said = runner(verb, "fuse-writable-mmap@control", "--base", "linux-6.12-cloud")
    assert said.returncode == 2
    assert "fuse-writable-mmap@control does not apply to base 'linux-6.12-cloud'" in said.stderr
    assert "--base linux-6.12" in said.stderr
    said = runner(verb, "base", "--base", "mine")
    assert said.returncode == 2
    assert "no base 'mine'" in said.stderr
    assert "there are: linux-6.12, linux-6.12-cloud" in said.stderr


@pytest.mark.parametrize("verb", ["shell", "gdb"])
def test_a_name_without_quotes_is_no_variant_and_a_command(verb: str) -> None:
    said = runner(verb, "base", "+", "config:debug")
    assert said.returncode == 2
    assert 'quote the whole name: "base + config:debug"' in said.stderr


@pytest.mark.parametrize("verb", ["plan", "calibrate"])
@pytest.mark.parametrize("blocks", ["-3", "0", "2.5", "many"])
def test_a_number_of_blocks_that_is_none_is_refused(verb: str, blocks: str) -> None:
    said = runner(verb, "--blocks", blocks)
    assert said.returncode == 2
    assert f"argument --blocks: '{blocks}' is no whole number of 1 or more" in said.stderr
    assert said.stdout == ""


def test_an_option_at_the_wrong_place_is_told_where_it_belongs() -> None:
    said = runner("run", "--lab", "mine.toml")
    assert said.returncode == 2
    assert "unrecognized arguments: --lab" in said.stderr
    assert "--lab comes before the verb: runner.py --lab FILE run" in said.stderr
    said = runner("run", "--labs")
    assert said.returncode == 2
    assert "unrecognized arguments: --labs" in said.stderr
    assert "before the verb" not in said.stderr


def test_an_unknown_key_has_its_line_and_the_nearest_one(copy: Path) -> None:
    lab = copy / "lab.toml"
    lab.write_text(lab.read_text().replace("memory =", "memroy ="))
    line = lab.read_text().splitlines().index('memroy = "1G"') + 1
    said = runner("--lab", "lab.toml", "run", cwd=copy)
    assert said.returncode == 2
    assert f"lab.toml:{line}: unknown key 'memroy' in [machine]" in said.stderr
    assert "did you mean 'memory'?" in said.stderr


def test_a_missing_lab_is_a_usage_error(tmp_path: Path) -> None:
    said = runner("--lab", "nowhere.toml", "list", cwd=tmp_path)
    assert said.returncode == 2
    assert "nowhere.toml" in said.stderr


def test_a_report_of_nothing_says_how_to_get_one(copy: Path) -> None:
    said = runner("--lab", str(copy / "lab.toml"), "report")
    assert said.returncode == 2
    assert "runner.py run" in said.stderr


def test_missing_tools_are_named_with_their_packages_before_anything_starts(
    tmp_path: Path,
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "setpriv").symlink_to(str(shutil.which("setpriv")))
    cache = tmp_path / "cache"
    said = runner("run", env={"PATH": str(tools), "XDG_CACHE_HOME": str(cache)})
    assert said.returncode == 69
    for package in ("gcc", "qemu-system-x86", "bubblewrap", "mmdebstrap"):
        assert package in said.stderr
    assert "sudo apt-get install" in said.stderr
    assert not cache.exists()


def test_a_plan_says_that_the_base_is_to_be_built_too(copy: Path) -> None:
    empty = {"XDG_CACHE_HOME": str(copy / "cache")}
    said = runner("--lab", str(copy / "lab.toml"), "plan", "fuse-direct-mmap", env=empty)
    assert said.returncode == 0, said.stderr
    assert "linux-6.12 whole, " in said.stdout
    assert said.stdout.index("whole") < said.stdout.index("fuse-direct-mmap@v1,")


def test_doctor_gives_every_finding_a_remedy() -> None:
    said = runner("doctor", "--json")
    document = json.loads(said.stdout)
    assert document["format"] == "patchlab-doctor/1"
    assert {"qemu-system-x86_64", "disk", "cores", "KVM", "clock"} <= {
        finding["name"] for finding in document["findings"]
    }
    for finding in document["findings"]:
        assert finding["state"] == "ok" or finding["remedy"] or "not needed" in finding["finding"]
    missing = [f for f in document["findings"] if f["state"] == "missing"]
    assert said.returncode == (69 if missing else 0)
