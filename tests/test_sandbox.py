# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from patchlab import proc
from patchlab.sandbox import bubblewrap

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")

INSIDE = Path("/build/tree")


def boxed(tree: Path, script: str, *, network: bool = False) -> proc.Completed:
    argv = bubblewrap(
        ["sh", "-c", script], cwd=INSIDE, write={INSIDE: tree}, env={"X": "1"}, network=network
    )
    return proc.run(argv, deadline=20, ok=range(256))


def connect_to(port: int) -> str:
    # bash speaks TCP by itself, so this needs no other program inside.
    return f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' && echo connected"


def test_a_tool_chain_works_and_only_the_tree_is_written(tmp_path: Path) -> None:
    done = boxed(tmp_path, "pwd; awk 'BEGIN {print 6 * 7}'; echo new > file; env | sort")
    assert done.code == 0
    assert done.output.startswith("/build/tree\n42\n")
    assert (tmp_path / "file").read_text() == "new\n"
    names = {line.split("=")[0] for line in done.output.splitlines() if "=" in line}
    assert names <= {"HOME", "LC_ALL", "PATH", "PWD", "OLDPWD", "SHLVL", "TZ", "X", "_"}


def test_there_is_no_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert "connected" not in boxed(tmp_path, connect_to(port)).output
        assert "connected" in boxed(tmp_path, connect_to(port), network=True).output


def test_the_home_and_the_host_are_not_seen(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "home" / "secret").write_text("secret")
    for path in (Path.home(), tmp_path / "home" / "secret", Path("/etc/shadow"), Path("/var")):
        assert boxed(tmp_path / "tree", f"test ! -e {path}").code == 0, path


@pytest.mark.parametrize("path", ["/usr/patchlab-was-here", "/etc/alternatives/patchlab"])
def test_nothing_else_can_be_written(tmp_path: Path, path: str) -> None:
    done = boxed(tmp_path, f"echo x > {path}")
    assert done.code != 0
    assert "Read-only file system" in done.output
    assert not Path(path).exists()


def test_there_are_no_capabilities(tmp_path: Path) -> None:
    done = boxed(tmp_path, "grep CapEff: /proc/self/status; mount -t tmpfs none /tmp")
    assert done.code != 0
    assert done.output.split()[1].strip("0") == ""


def test_other_processes_are_not_seen(tmp_path: Path) -> None:
    done = boxed(tmp_path, f"test ! -e /proc/{os.getpid()}/cmdline && echo /proc/[0-9]*")
    assert done.code == 0
    assert len(done.output.split()) <= 3


RUNNER = """
import sys
from pathlib import Path
from patchlab import proc
from patchlab.sandbox import bubblewrap
tree = Path(sys.argv[1])
script = "exec 9>fifo; echo started >&9; sleep 600 & sleep 600"
argv = bubblewrap(["sh", "-c", script], cwd=Path("/t"), write={Path("/t"): tree})
proc.run(argv, deadline=900)
"""


def test_killing_the_lab_kills_everything_inside(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    lab = subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path)])
    with fifo.open("rb") as pipe:
        assert pipe.readline() == b"started\n"
        lab.send_signal(signal.SIGKILL)
        lab.wait()
        # Every process inside holds the other end; the last to die closes it.
        assert pipe.read() == b""
