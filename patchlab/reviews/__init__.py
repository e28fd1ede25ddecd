# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches -> which demands are met, which are open."""
