# SPDX-License-Identifier: GPL-2.0-or-later
"""patchlab: build, boot, check and time revisions of a kernel patch series."""

__version__ = "0.1.0"
