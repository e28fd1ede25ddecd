# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from patchlab import host, proc

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Proof:
    state: str
    reason: str = ""


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def found(name: str, diagnoses: tuple[host.Diagnosis, ...]) -> host.Diagnosis:
    return next(item for item in diagnoses if item.name == name)


def test_facts_are_of_this_host() -> None:
    facts = host.facts()
    assert set(facts) == {"cpu", "cores", "memory", "kernel", "distribution", "python"}
    assert all(facts.values())
    assert os.uname().release in facts["kernel"]


CPUINFO = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Old Faithful 3000\n"


def test_facts_are_read_from_where_the_kernel_says_them(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/cpuinfo": CPUINFO,
            "proc/meminfo": "MemTotal:       16384000 kB\nMemFree: 1 kB\n",
            "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
        },
    )
    facts = host.facts(root)
    assert facts["cpu"] == "Old Faithful 3000"
    assert facts["memory"] == "15.6 GiB"
    assert facts["distribution"] == "Debian GNU/Linux 12 (bookworm)"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        (  # the parent's limit is tighter than the group's own
            {
                "proc/self/cgroup": "0::/lab.slice/run.scope\n",
                "sys/fs/cgroup/lab.slice/cpu.max": "100000 100000\n",
                "sys/fs/cgroup/lab.slice/run.scope/cpu.max": "400000 100000\n",
            },
            1.0,
        ),
        (  # version 1, as seen from inside a container
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_a_cgroup_quota_is_found(
    tmp_path: Path, files: dict[str, str], quota: float | None
) -> None:
    assert host.cores(tree(tmp_path, files)).quota == quota


def test_usable_cores_are_whole_and_at_least_one() -> None:
    assert host.Cores(allowed=8, online=16, quota=2.9).usable == 2
    assert host.Cores(allowed=8, online=16, quota=0.5).usable == 1
    assert host.Cores(allowed=8, online=16, quota=None).usable == 8
    assert str(host.Cores(8, 16, 2.5)) == "2 usable of 16, quota 2.5"


def test_memory_is_the_cgroup_s_where_that_is_less(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": "MemTotal: 16777216 kB\n",
        "proc/self/cgroup": "0::/box\n",
        "sys/fs/cgroup/box/memory.max": f"{3 << 30}\n",
        "sys/fs/cgroup/memory.max": "max\n",
    }
    assert host.memory(tree(tmp_path, files)) == 3 << 30


def test_an_empty_host_lacks_every_package(tmp_path: Path) -> None:
    missing = host.missing_packages(path=str(tmp_path), root=tmp_path)
    wanted = {tool.package for tool in host.TOOLS if tool.needed}
    assert wanted <= set(missing)
    assert len(missing) == len(set(missing))


def test_one_missing_program_is_named_with_its_package(tmp_path: Path) -> None:
    programs, files = tmp_path / "bin", tmp_path / "root"
    programs.mkdir()
    for tool in host.TOOLS:
        for name in tool.files:
            tree(files, {name: ""})
        if not tool.files and tool.name != "bison":
            (programs / tool.name).symlink_to(sys.executable)
    assert host.missing_packages(path=str(programs), root=files) == ("bison",)
    item = found("bison", host.diagnose(tmp_path, 1, path=str(programs), root=files))
    assert item.state == "missing"
    assert item.remedy == "sudo apt-get install -y --no-install-recommends bison"


def test_this_room_runs_with_the_bare_interpreter() -> None:
    """bootstrap.py imports it before any package is installed."""
    code = "from patchlab import host; print(*host.missing_packages())"
    here = f"import sys; sys.path[:0] = [{str(ROOT)!r}]"
    done = proc.run([sys.executable, "-I", "-S", "-c", f"{here}; {code}"], deadline=20)
    assert set(done.output.split()) == set(host.missing_packages())


def test_every_finding_but_a_good_one_has_a_remedy(tmp_path: Path) -> None:
    for diagnoses in (
        host.diagnose(tmp_path),
        host.diagnose(tmp_path / "a" / "b", 1 << 60, path=str(tmp_path), root=tmp_path),
    ):
        for item in diagnoses:
            assert item.finding
            assert item.state == "ok" or item.remedy, item


def test_a_cache_that_is_not_there_yet_is_measured_on_its_disk(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    fits = found("disk", host.diagnose(tmp_path / "a" / "b", free // 2))
    assert fits.state == "ok"
    assert not (tmp_path / "a").exists()
    tight = found("disk", host.diagnose(tmp_path / "a" / "b", free * 2))
    assert tight.state == "missing"
    assert "XDG_CACHE_HOME" in tight.remedy


def test_the_disk_that_a_cold_run_takes_is_said_with_its_unit_and_in_the_readme(
    tmp_path: Path,
) -> None:
    assert found("disk", host.diagnose(tmp_path)).finding.endswith("a cold run takes 12 GiB")
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"{host.COLD_CACHE // host.GIB} GiB of free disk" in readme


def test_a_warm_cache_may_do_with_less_disk(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert found("disk", host.diagnose(tmp_path, 1 << 60)).state == "warning"


@pytest.mark.parametrize(
    ("device", "proof", "state", "said", "clock"),
    [
        (False, None, "warning", "TCG will be used", "icount"),
        (True, None, "unproved", "proves nothing", "icount"),
        (True, Proof("unproved"), "unproved", "proves nothing", "icount"),
        (True, Proof("refused", "emulation failure"), "warning", "emulation failure", "icount"),
        (True, Proof("proved", "a guest answered in 1.2 s"), "ok", "1.2 s", "wall"),
    ],
)
def test_kvm_counts_only_when_proved(
    tmp_path: Path, device: bool, proof: Proof | None, state: str, said: str, clock: str
) -> None:
    root = tree(tmp_path, {"dev/kvm": ""} if device else {})
    diagnoses = host.diagnose(tmp_path, 1, kvm=proof, root=root)
    kvm = found("KVM", diagnoses)
    assert kvm.state == state
    assert said in kvm.finding
    assert found("clock", diagnoses).finding.startswith(clock)


def test_user_namespaces_are_unproved_without_bwrap(tmp_path: Path) -> None:
    item = found("user namespaces", host.diagnose(tmp_path, 1, path=str(tmp_path)))
    assert item.state == "unproved"
    assert "bubblewrap" in item.remedy


@pytest.mark.parametrize(
    ("subuid", "subgid", "named"),
    [
        ("ann:100000:65536\n", "ann:100000:65536\n", ()),
        ("bob:100000:65536\n", "ann:100000:65536\n", ("/etc/subuid",)),
        ("ann:100000:1000\n", "", ("/etc/subuid", "/etc/subgid")),
        ("# nobody\nann:x\n", "ann:100000:131072\n", ("/etc/subuid",)),
    ],
)
def test_an_ordinary_user_needs_numbers_of_its_own(
    tmp_path: Path, subuid: str, subgid: str, named: tuple[str, ...]
) -> None:
    root = tree(tmp_path, {"etc/subuid": subuid, "etc/subgid": subgid})
    item = host.subordinate_ids(root, "ann")
    assert item.state == ("missing" if named else "ok")
    assert all(file in item.finding for file in named)
    assert ("usermod --add-subuids 100000-165535" in item.remedy) == bool(named)


def test_numbers_may_be_given_to_a_user_number(tmp_path: Path) -> None:
    files = {f"etc/{name}": "0:100000:65536\n" for name in ("subuid", "subgid")}
    assert host.subordinate_ids(tree(tmp_path, files), "root").state == "ok"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another group")
@pytest.mark.parametrize(("mode", "word"), [(0o660, "adduser $USER daemon"), (0o600, "setfacl")])
def test_who_may_not_open_kvm_is_told_how(tmp_path: Path, mode: int, word: str) -> None:
    device = tree(tmp_path, {"dev/kvm": ""}) / "dev/kvm"
    shutil.chown(device, "root", "daemon")
    device.chmod(mode)
    assert word in host.let_in(device)
