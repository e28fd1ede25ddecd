# SPDX-License-Identifier: GPL-2.0-or-later
"""A small filesystem, or a CUSE device, that speaks the raw protocol.

``protocol`` has the layouts, ``server`` the process that answers (``folder`` for a mount,
``regions`` for direct mmap), ``client`` what a check starts, ``steering`` what it holds.
"""

from __future__ import annotations

from guest.fuse.client import Device, Mount, device, mounted

__all__ = ["Device", "Mount", "device", "mounted"]
