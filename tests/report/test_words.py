# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import math

import pytest

from patchlab.report import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (78384.2, "78,384"),
        (956.649, "956.6"),
        (55.2371, "55.24"),
        (0.0123456, "0.01235"),
        (1e-9, "0.000000"),
        (0.0, "0"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_a_level_has_four_digits_or_is_whole(value: float | None, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(164.2, "+164"), (-18.92, "−18.9"), (1210.4, "+1,210"), (0.0, "±0")]
)
def test_a_change_has_a_sign_and_three_digits(value: float, text: str) -> None:
    assert words.change(value) == text


@pytest.mark.parametrize(
    ("low", "high", "places"),
    [(0.0018, 0.0024, 3), (-0.007, 0.037, 1), (-0.4, 0.4, 1), (0.0, 1e-9, 4), (None, None, 2)],
)
def test_decimals_follow_the_interval(low: float | None, high: float | None, places: int) -> None:
    assert words.places_for(low, high) == places


def test_per_cent() -> None:
    assert words.percent(0.0021) == "+0.21 %"
    assert words.percent(-0.45, 1) == "−45.0 %"
    assert words.percent(-0.0000001) == "±0.00 %"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(42.14, "42.1 s"), (59.99, "1 min 0 s"), (843.2, "14 min 3 s"), (3599.9, "1 h 0 min")],
)
def test_a_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_unseen_characters_are_shown() -> None:
    assert words.visible("a\r\nb\tc") == "a\nb\tc"
    assert words.visible("\x1b[2J \x00 \x9b \u202e") == "\\x1b[2J \\x00 \\x9b \\u202e"


def test_names_that_share_a_text_share_a_line() -> None:
    pairs = [("B1", "x"), ("B2", "y"), ("B3", "x")]
    assert words.together(pairs) == ["B1, B3: x", "B2: y"]


def test_arms_of_one_series_go_by_their_revisions() -> None:
    assert words.short(("demo@v1", "demo@v2")) == ("v1", "v2")
    for arms in (("base", "demo@v1"), ("demo@v1", "other@v1"), ("demo@v1", "demo@v2 + other@v1")):
        assert words.short(arms) == arms
