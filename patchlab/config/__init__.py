# SPDX-License-Identifier: GPL-2.0-or-later
"""lab.toml, kernels/*.toml and patches/*/series.toml -> model.Lab.

Everything is checked here, before anything slow: no subprocess, no network.
"""

from patchlab.config.load import FEATURES, feature_names, load
from patchlab.config.resolve import find_variant

__all__ = ["FEATURES", "feature_names", "find_variant", "load"]
