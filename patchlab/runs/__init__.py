# SPDX-License-Identifier: GPL-2.0-or-later
"""Which boots a run makes, and what one boot gives."""
