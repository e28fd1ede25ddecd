# SPDX-License-Identifier: GPL-2.0-or-later
"""Image -> a guest that answers, or why it does not."""
