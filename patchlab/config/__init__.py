# SPDX-License-Identifier: GPL-2.0-or-later
"""lab.toml, kernels/*.toml and patches/*/series.toml -> model.Lab.

Everything is checked here, before anything slow: no network, and no subprocess but the git
that splits a user's own mbox.
"""

from patchlab.config.load import FEATURES, feature_names, load
from patchlab.config.resolve import Place, find_variant, on_base, stored_name

__all__ = ["FEATURES", "Place", "feature_names", "find_variant", "load", "on_base", "stored_name"]
