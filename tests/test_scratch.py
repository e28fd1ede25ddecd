# SPDX-License-Identifier: GPL-2.0-or-later
"""What a killed process leaves goes with the next one; what a live one has stays."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from patchlab import scratch

ROOT = Path(__file__).parents[1]


@contextmanager
def holder(program: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs ``program`` and says a line; killed with kill -9 at the end."""
    argv = [sys.executable, "-c", program]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline()
        try:
            yield process
        finally:
            os.kill(process.pid, signal.SIGKILL)


def test_a_folder_is_private_and_gone_afterwards(tmp_path: Path) -> None:
    with scratch.folder("boot", tmp_path) as made:
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        (made / "file").write_text("x")
        assert scratch.clean(tmp_path) == ()
        assert (made / "file").is_file()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="not one of"), scratch.folder("other", tmp_path):
        pass


def test_a_socket_fits_into_a_folder_below_tmp() -> None:
    with scratch.folder("boot") as made:
        assert made.parent == Path(tempfile.gettempdir())
        assert len(f"/tmp/{made.name}/ready.sock") < 60


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_has_is_not(
    tmp_path: Path,
) -> None:
    program = f"""
import sys, time
from pathlib import Path
from patchlab import scratch
with scratch.folder("boot", Path({str(tmp_path)!r})) as made:
    (made / "pmem0").write_bytes(b"x")
    print(made, flush=True)
    time.sleep(300)
"""
    with holder(program):
        [left] = tmp_path.iterdir()
        assert scratch.clean(tmp_path) == ()
        assert (left / "pmem0").is_file()
    assert scratch.clean(tmp_path) == (left,)
    assert list(tmp_path.iterdir()) == []


def test_other_names_and_links_are_left_alone(tmp_path: Path) -> None:
    other, target = tmp_path / "patchlab-results", tmp_path / "target"
    for folder in (other, target):
        folder.mkdir()
        (folder / "file").write_text("x")
    link = tmp_path / "patchlab-boot-abc"
    link.symlink_to(target)
    assert scratch.clean(tmp_path) == ()
    assert (other / "file").is_file() and (target / "file").is_file() and link.is_symlink()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    scratch.write(page, "first")
    scratch.write(page, "second")
    assert page.read_text() == "second"
    assert stat.S_IMODE(page.stat().st_mode) == 0o644
    with pytest.raises(UnicodeEncodeError):
        scratch.write(page, "half \ud800")
    assert (page.read_text(), list(tmp_path.iterdir())) == ("second", [page])


def test_a_half_written_file_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    program = f"""
import os, time
from pathlib import Path
from patchlab import scratch
kept = os.fsync
def stop(handle):
    print("half", flush=True)
    time.sleep(300)
os.fsync = stop
scratch.write(Path({str(tmp_path / "page")!r}), "x")
"""
    with holder(program):
        [left] = tmp_path.iterdir()
        assert scratch.clean(tmp_path) == ()
    assert scratch.clean(tmp_path) == (left,)


def test_only_one_process_holds_a_run(tmp_path: Path) -> None:
    program = f"""
import time
from pathlib import Path
from patchlab.runs import sitting
with sitting.taken(Path({str(tmp_path)!r}), 1):
    print("held", flush=True)
    time.sleep(300)
"""
    from patchlab.errors import StoreError
    from patchlab.runs import sitting

    with holder(program):
        with sitting.free(tmp_path, 1) as mine:
            assert not mine
        with pytest.raises(StoreError, match="another process"), sitting.taken(tmp_path, 1):
            pass
    with sitting.free(tmp_path, 1) as mine:
        assert mine
