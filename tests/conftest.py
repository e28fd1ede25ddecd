# SPDX-License-Identifier: GPL-2.0-or-later
"""Lets every test import the made-up run that lives beside the report's tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "report"))
