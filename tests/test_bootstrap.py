# SPDX-License-Identifier: GPL-2.0-or-later
"""bootstrap.py as `make` runs it: a process of its own, with the system's python3."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import bootstrap

ROOT = Path(__file__).parents[1]
SYSTEM = next(p for p in ("/usr/bin/python3", sys.executable) if Path(p).exists())


@pytest.fixture
def project() -> Iterator[Path]:
    """A copy that another user may read, which pytest's own folders are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "patchlab").mkdir()
        for file in (
            "bootstrap.py",
            *(f"patchlab/{n}.py" for n in ("__init__", "host", "proc", "errors", "sandbox")),
        ):
            shutil.copy(ROOT / file, folder / file)
        (folder / "requirements.txt").write_text("# nothing\n")
        yield folder


NOBODY = ("--reuid=65534", "--regid=65534", "--clear-groups", "--")


def run(
    project: Path, *, python: str = SYSTEM, path: str = os.environ["PATH"], user: bool = False
) -> subprocess.CompletedProcess[str]:
    setpriv = shutil.which("setpriv")
    assert setpriv
    drop = [setpriv, *NOBODY] if user and os.geteuid() == 0 else []
    return subprocess.run(
        [*drop, python, str(project / "bootstrap.py")],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_root_the_exact_line_to_type_is_printed(project: Path) -> None:
    (project / "empty").mkdir()
    done = run(project, path=str(project / "empty"), user=True)
    assert done.returncode == 69
    listed = re.search(r"^apt packages that are missing: (.*)$", done.stdout, re.MULTILINE)
    assert listed
    assert {"qemu-system-x86", "mmdebstrap", "bubblewrap", "git"} <= set(listed[1].split())
    line = f"sudo apt-get install -y --no-install-recommends {listed[1]}"
    assert done.stderr.rstrip().endswith(line)
    assert "Traceback" not in done.stderr
    assert not (project / ".venv").exists()


def test_with_all_in_place_it_says_and_does_nothing(project: Path) -> None:
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").symlink_to(sys.executable)
    bootstrap.finish(project)
    done = run(project, python=sys.executable)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_venv_for_other_requirements_or_without_its_python_is_not_finished(
    project: Path,
) -> None:
    python = project / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert not bootstrap.finished(project)
    bootstrap.finish(project)
    assert bootstrap.finished(project)
    (project / "requirements.txt").write_text("# something else\n")
    assert not bootstrap.finished(project)
    bootstrap.finish(project)
    python.unlink()
    assert not bootstrap.finished(project)


def test_a_package_without_its_hash_is_refused_and_the_venv_not_taken_for_whole(
    project: Path,
) -> None:
    (project / "requirements.txt").write_text("rich\n")
    done = run(project)
    assert done.returncode == 69
    assert "hash" in done.stdout.lower()  # pip's own words
    assert f"{project}/requirements.txt: not all of it could be installed" in done.stderr
    assert "next: " in done.stderr
    assert (project / ".venv/bin/python").exists()
    assert not bootstrap.finished(project)


def test_missing_requirements_are_named(project: Path) -> None:
    (project / "requirements.txt").unlink()
    done = run(project)
    assert done.returncode == 69
    assert f"{project}/requirements.txt: no such file" in done.stderr


def test_indexes_that_lack_a_kernels_source_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists, archive, kernels = (tmp_path / name for name in ("lists", "archive", "kernels"))
    for folder in (lists / "partial", archive, kernels):
        folder.mkdir(parents=True)
    tmp_path.chmod(0o755)
    stanza = "Package: linux-source-1.2.13\nVersion: 1\nArchitecture: all\nFilename: ./none.deb\n"
    (archive / "Packages").write_text(stanza + "Size: 1\n")
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{archive} ./\n")
    (tmp_path / "apt.conf").write_text(
        f'Dir::State::lists "{lists}";\n'
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\n'
        f'Dir::Etc::sourceparts "/dev/null";\n'
        f'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
        f'APT::Sandbox::User "root";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    base = '[source]\nkind = "debian"\npackage = "linux-source-1.2.13"\n'
    (kernels / "linux-1.2.toml").write_text(base)

    bootstrap.indexes(kernels)

    known = [file.name for file in lists.iterdir() if "_Packages" in file.name]
    assert len(known) == (1 if os.geteuid() == 0 else 0)
    [file] = known or [""]
    before = (lists / file).stat().st_mtime_ns
    bootstrap.indexes(kernels)
    assert (lists / file).stat().st_mtime_ns == before
