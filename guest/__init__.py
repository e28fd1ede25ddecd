# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs inside the guest: standard library only, never imports patchlab."""
