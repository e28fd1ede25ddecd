# SPDX-License-Identifier: GPL-2.0-or-later
"""Content-keyed folders and the results database."""
