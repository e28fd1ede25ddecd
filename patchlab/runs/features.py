# SPDX-License-Identifier: GPL-2.0-or-later
"""What the features in guest/ say of their checks and metrics, asked without a guest."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from patchlab import proc
from patchlab.errors import LabError
from patchlab.guests.command_line import GUEST_CODE
from patchlab.record import CheckInfo, MetricInfo


@dataclass(frozen=True, slots=True)
class Catalogue:
    checks: tuple[CheckInfo, ...]
    metrics: tuple[MetricInfo, ...]

    def of(self, features: Sequence[str]) -> Catalogue:
        """Only these features, in this order."""
        return Catalogue(
            tuple(c for name in features for c in self.checks if c.feature == name),
            tuple(m for name in features for m in self.metrics if m.feature == name),
        )


def catalogue() -> Catalogue:
    """Every check and metric that the agent has. An agent that cannot say is a bug of the lab."""
    argv = [sys.executable, str(GUEST_CODE / "agent.py"), "--describe"]
    said = proc.run(argv, deadline=60).output
    try:
        return msgspec.json.decode(said, type=Catalogue)
    except msgspec.MsgspecError as error:
        raise LabError(f"guest/agent.py --describe: {error}") from error
