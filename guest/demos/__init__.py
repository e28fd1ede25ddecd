# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that a user runs in a guest, to see a feature at work."""
