# SPDX-License-Identifier: GPL-2.0-or-later
"""The scanner finds the line of every key that tomllib finds."""

from __future__ import annotations

import datetime
import tomllib
from typing import Any

import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from patchlab.config.lines import KeyPath, scan

TRICKY = '''\
# a = 1
a = """
b = 1
[c] \\" """"
b = 'x # y' # z
"c.d" . 'e f' = [ # one
  1, [2,
  3], { k = "]", l.m = 1 },
]
f = \'\'\'it's \'\' \'\'\'
t = 1979-05-27 07:32:00

[ g . "h]" ]
i = {}
[[g.j]]
x = ""
[[ g . j ]]
[g.j.k]
y = 1
[[g.j.l]]
z = 1
'''


def test_tricky_places() -> None:
    assert tomllib.loads(TRICKY)
    lines = scan(TRICKY)
    expected: dict[KeyPath, int] = {
        ("a",): 2,
        ("b",): 5,
        ("c.d", "e f"): 6,
        ("c.d", "e f", 0): 7,
        ("c.d", "e f", 1, 1): 8,
        ("c.d", "e f", 2, "l", "m"): 8,
        ("f",): 10,
        ("t",): 11,
        ("g",): 13,
        ("g", "h]", "i"): 14,
        ("g", "j"): 15,
        ("g", "j", 0, "x"): 16,
        ("g", "j", 1): 17,
        ("g", "j", 1, "k"): 18,
        ("g", "j", 1, "k", "y"): 19,
        ("g", "j", 1, "l", 0, "z"): 21,
    }
    assert {path: lines.get(path) for path in expected} == expected


KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=6)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=12),
    st.just('line\n"""\n[x]\n'),
    st.just(datetime.datetime(1979, 5, 27, 7, 32)),
)
TABLES: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(KEYS, SCALARS, max_size=3),
    lambda inner: st.dictionaries(
        KEYS, SCALARS | inner | st.lists(inner, max_size=3) | st.lists(SCALARS, max_size=3)
    ),
    max_leaves=12,
)


# No deadline: the host may be building a kernel.
@settings(deadline=None, max_examples=60)
@given(TABLES)
def test_every_path_has_a_line_inside_the_text(data: dict[str, Any]) -> None:
    text = tomlkit.dumps(data)
    lines = scan(text)
    assert set(paths(tomllib.loads(text), ())) == set(lines)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


def paths(value: object, path: KeyPath) -> list[KeyPath]:
    items: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    found = [path] if path else []
    for key, item in items:
        found += paths(item, (*path, key))
    return found
