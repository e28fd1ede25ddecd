# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of ``make prove``, and what they keep."""
