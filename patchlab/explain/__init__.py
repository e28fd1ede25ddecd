# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a metric moved: what differs between two arms, and where the instructions are."""
