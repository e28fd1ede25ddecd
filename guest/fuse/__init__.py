# SPDX-License-Identifier: GPL-2.0-or-later
"""A small filesystem that speaks the raw /dev/fuse protocol.

``protocol`` has the layouts, ``server`` the process that answers, ``client`` what a check uses.
"""

from __future__ import annotations

from guest.fuse.client import Mount, mounted

__all__ = ["Mount", "mounted"]
