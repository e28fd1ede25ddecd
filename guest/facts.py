# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest says of itself."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

_CLOCKSOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"


def gather() -> dict[str, str]:
    """str to str; what cannot be found out is an empty string."""
    return {
        "uname": " ".join(os.uname()),
        "release": os.uname().release,
        "cmdline": _read("/proc/cmdline"),
        "clocksource": _read(_CLOCKSOURCE),
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cpus": str(os.cpu_count() or ""),
        "python": platform.python_version(),
        "xfsprogs": _version("mkfs.xfs", "-V"),
        "memory": _field("/proc/meminfo", "MemTotal"),
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _field(path: str, name: str) -> str:
    for line in _read(path).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _version(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
