# SPDX-License-Identifier: GPL-2.0-or-later
"""The door to subprocesses, with real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from patchlab import proc
from patchlab.errors import MissingTool


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody has reaped yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def gone(pid: int, seconds: float = 5.0) -> bool:
    limit = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < limit:
        time.sleep(0.01)
    return not alive(pid)


def pid_in(file: Path, seconds: float = 5.0) -> int:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if file.is_file() and (text := file.read_text()).endswith("\n"):
            return int(text)
        time.sleep(0.01)
    raise AssertionError(f"{file} never held a pid")


def test_output_comes_merged_and_line_by_line(tmp_path: Path) -> None:
    lines: list[str] = []
    log = tmp_path / "log"
    done = proc.run(["sh", "-c", "echo one; echo two >&2"], deadline=10, line=lines.append, log=log)
    assert done.output == "one\ntwo\n"
    assert lines == ["one", "two"]
    assert log.read_text() == "one\ntwo\n"


def test_failure_names_command_tail_and_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(proc.CommandFailed) as caught:
        proc.run(["sh", "-c", "echo the reason; exit 7"], deadline=10, log=log)
    assert caught.value.code == 7
    for part in ("exit 7", "sh -c 'echo the reason; exit 7'", "the reason", str(log)):
        assert part in str(caught.value)


def test_an_expected_exit_code_is_no_failure() -> None:
    assert proc.run(["sh", "-c", "exit 1"], deadline=10, ok=(0, 1)).code == 1


def test_stdin_is_closed_unless_given() -> None:
    assert proc.run(["cat"], deadline=10).output == ""
    assert proc.run(["cat"], deadline=10, stdin=b"x" * 300_000).output == "x" * 300_000


def test_missing_program_is_named() -> None:
    with pytest.raises(MissingTool, match="no-such-program"):
        proc.run(["no-such-program"], deadline=10)


def test_deadline_kills_grandchildren_too(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    script = f"sleep 300 & echo $! > {file}; wait"
    with pytest.raises(proc.CommandTimedOut):
        proc.run(["sh", "-c", script], deadline=0.5)
    assert gone(pid_in(file))


def test_spawn_ends_the_group_on_an_exception(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    argv = ["sh", "-c", f"trap '' TERM; sleep 300 & echo $! > {file}; wait"]
    with pytest.raises(RuntimeError, match="on purpose"), proc.spawn(argv, grace=0.2):
        pid = pid_in(file)
        raise RuntimeError("on purpose")
    assert gone(pid)


def test_child_dies_with_the_lab_even_of_kill_9(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = (
        "from patchlab import proc\n"
        f"proc.run(['sh', '-c', 'echo $$ > {file}; exec sleep 300'], deadline=300)\n"
    )
    root = Path(__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", code], cwd=root) as lab:
        pid = pid_in(file)
        assert alive(pid)
        os.kill(lab.pid, signal.SIGKILL)
    assert gone(pid)


def test_what_a_child_started_dies_with_the_lab_as_well(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    script = f"sleep 300 & echo $! > {file}; wait"
    code = f"from patchlab import proc\nproc.run(['sh', '-c', {script!r}], deadline=300)\n"
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1]) as lab:
        pid = pid_in(file)
        assert alive(pid)
        os.kill(lab.pid, signal.SIGKILL)
    assert gone(pid)


def test_what_has_ended_is_not_killed_again() -> None:
    undertaker = Path(proc.__file__).with_name("undertaker.py")
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as bystander:
        lines = f"+{bystander.pid}\n-{bystander.pid}\n+{bystander.pid}"
        subprocess.run([sys.executable, undertaker], input=lines.encode(), check=True)
        assert bystander.poll() is None
        subprocess.run([sys.executable, undertaker], input=f"{lines}\n".encode(), check=True)
        assert bystander.wait(30) == -signal.SIGKILL


def test_environment_is_explicit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    said = proc.run(["env"], deadline=10, env={"EXTRA": "1"}).output.splitlines()
    assert "EXTRA=1" in said
    assert "LC_ALL=C.UTF-8" in said
    assert not [line for line in said if line.startswith(("SECRET_TOKEN", "LANG="))]


def test_nothing_runs_and_nothing_starts_while_the_lab_stops() -> None:
    with proc.spawn(["sleep", "60"]) as sleeper:
        with proc.stopping():
            assert sleeper.wait(5) == -signal.SIGKILL
            with pytest.raises(proc.Stopped, match="true"):
                proc.run(["true"], deadline=10)
        assert proc.run(["true"], deadline=10).code == 0


def test_after_a_second_interrupt_nothing_is_started_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proc, "_STOPPING", threading.Event())
    with pytest.raises(KeyboardInterrupt), proc.stopping():
        raise KeyboardInterrupt
    with pytest.raises(proc.Stopped):
        proc.run(["true"], deadline=10)
