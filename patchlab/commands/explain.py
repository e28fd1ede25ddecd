# SPDX-License-Identifier: GPL-2.0-or-later
"""runner.py compare A B --explain METRIC: why did it move?"""

from __future__ import annotations

from dataclasses import replace

from patchlab.commands.desk import Desk
from patchlab.explain.explain import explain
from patchlab.model import Lab
from patchlab.record import StoredRun
from patchlab.report import explained
from patchlab.verdict import Comparison


def run(desk: Desk, lab: Lab, stored: StoredRun, comparison: Comparison, metric: str) -> int:
    """Boot both arms once more, and show where the instructions are. 0, or a LabError."""
    found = explain(stored, comparison, metric, as_stored(lab, stored), desk.cache, desk.progress)
    desk.tell(explained.renderables(found))
    return 0


def as_stored(lab: Lab, stored: StoredRun) -> Lab:
    """The lab with the disk that the run's guests had: it is the run's, not the machine's."""
    return replace(lab, machine=replace(lab.machine, disk=int(stored.ground.get("disk", "0"))))
