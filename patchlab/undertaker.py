# SPDX-License-Identifier: GPL-2.0-or-later
"""Ends what the children of a killed lab started.

The kernel kills a child of the lab when the lab dies (``setpriv --pdeathsig``), but not the
child's own children: mmdebstrap's apt and dpkg went on for half a minute. So the lab tells
one small process which process groups it has, through a pipe; when the pipe ends, the lab
is dead, and the groups that are left are killed. Run as a program by patchlab.proc.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable


def watch(lines: Iterable[str]) -> None:
    """Read ``+GROUP`` and ``-GROUP`` lines to the end, then kill the groups that are left."""
    groups: set[int] = set()
    for line in lines:
        # The last line may be half: the lab died while it wrote.
        if line.endswith("\n"):
            group = int(line[1:])
            (groups.add if line.startswith("+") else groups.discard)(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    watch(sys.stdin)
