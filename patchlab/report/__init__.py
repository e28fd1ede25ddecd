# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports of stored runs: one file a format. None of them needs a guest."""
