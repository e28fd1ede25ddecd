# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from patchlab.errors import MissingTool
from patchlab.sources import apt


def test_a_package_that_only_matches_as_a_pattern_is_not_it() -> None:
    """Debian 13 has linux-source-6.12 and no linux-source-6.1; apt showed the one for the other."""
    assert apt.candidate("dpkg").package == "dpkg"
    with pytest.raises(MissingTool, match=r"no package dpk\.") as error:
        apt.candidate("dpk.")
    assert "apt-get update" in error.value.hint
