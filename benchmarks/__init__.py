# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's own speed: ``make bench``, or ``python -m benchmarks [NAME…]``; docs/speed.md."""
