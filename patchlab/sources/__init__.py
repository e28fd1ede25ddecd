# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a base's source tree comes from: one file a kind, one line each in patchlab.source."""
