# SPDX-License-Identifier: GPL-2.0-or-later
"""The drawings: well-formed, named for who cannot see them, and right about what they show."""

from __future__ import annotations

import dataclasses
import itertools
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest

from patchlab.report import charts, html, words
from patchlab.verdict import Comparison, MetricComparison, Verdict
from patchlab.verdicts import compare, levels
from tests.report import sample_run
from tests.report.sample_run import BASE, CONTROL

RUN = sample_run.sample_run()
COMPARISON = compare.compare(RUN, BASE, CONTROL)


def parsed(drawing: str) -> ET.Element:
    return ET.fromstring(str(drawing).replace("&thinsp;", " ").replace("&ensp;", " "))


def forest(metrics: Sequence[MetricComparison], others: Sequence[Comparison] = ()) -> ET.Element:
    return parsed(charts.forest([dataclasses.replace(COMPARISON, metrics=tuple(metrics)), *others]))


def rows(drawing: ET.Element) -> dict[str, ET.Element]:
    """Metric's name, as it is shown -> its row."""
    return {
        text.text or "": row
        for row in drawing.findall("g")
        for text in row.findall("text")
        if text.get("class") == "name"
    }


def test_a_drawing_says_what_it_is_and_what_it_shows() -> None:
    strips = [charts.strip(row, n) for n, row in enumerate(levels.arms_table(RUN))]
    drawings = [charts.forest([COMPARISON]), *filter(None, strips)]
    ids: list[str] = []
    for drawing in map(parsed, drawings):
        named = [drawing.get("aria-labelledby"), drawing.get("aria-describedby")]
        found = [drawing.find("title"), drawing.find("desc")]
        assert [one.get("id") for one in found if one is not None] == named
        assert all(one is not None and one.text for one in found)
        ids += [name for name in named if name]
    assert len(ids) == len(set(ids)) == 2 * len(drawings) > 20
    said = parsed(drawings[0]).findtext("desc") or ""
    assert said == f"{CONTROL} against {BASE}: {words.metric_sentence(COMPARISON.metrics)}"


def test_a_verdict_is_told_by_its_word_and_by_a_shape_of_its_own() -> None:
    one = next(m for m in COMPARISON.metrics if m.ratio is not None)
    shown = [v for v in Verdict if v not in (Verdict.NEW, Verdict.GONE, Verdict.NOT_COMPARABLE)]
    metrics = [
        dataclasses.replace(
            one, verdict=verdict, metric=dataclasses.replace(one.metric, id=verdict.value)
        )
        for verdict in shown
    ]
    paths = {}
    for name, row in rows(forest(metrics)).items():
        assert [t.text for t in row.findall("text") if t.get("class") == "word"] == [
            name.removesuffix("*")
        ]
        (shape,) = row.findall("path")
        paths[name] = shape.get("d")
    assert len(set(paths.values())) == len(shown) == 5
    key = str(charts.legend())
    assert all(verdict.value in key for verdict in shown)


def test_what_was_not_judged_has_its_word_and_no_mark() -> None:
    found = rows(forest(COMPARISON.metrics))
    assert len(found) == len(COMPARISON.metrics)
    gone = found["dirty-msync*"]
    assert gone.find("path") is None
    assert [t.text for t in gone.findall("text")][-1] == "gone"


def test_the_interval_is_drawn_over_the_band_where_the_numbers_say() -> None:
    one = next(m for m in COMPARISON.metrics if m.metric.id == "dax-first")
    wide = dataclasses.replace(one, ratio=-0.004, low=-0.005, high=-0.003)
    drawing = forest([wide])
    (band,) = [r for r in drawing.findall("rect") if r.get("class") == "band"]
    (zero,) = [r for r in drawing.findall("line") if r.get("class") == "zero"]
    (whisker,) = [r for g in drawing.findall("g") for r in g.findall("line")]
    left, right = float(whisker.get("x1", "")), float(whisker.get("x2", ""))
    begin = float(band.get("x", ""))
    end = begin + float(band.get("width", ""))
    middle = float(zero.get("x1", ""))
    assert left < right < begin < middle < end
    assert middle - begin == pytest.approx(end - middle, abs=0.2)


def test_every_comparison_is_a_group_on_one_axis() -> None:
    other = dataclasses.replace(COMPARISON, candidate="v2")
    drawing = forest(COMPARISON.metrics, [other])
    groups = [t.text for t in drawing.findall("text") if t.get("class") == "group"]
    assert groups == [f"{CONTROL} against {BASE}", f"v2 against {BASE}"]
    assert len(drawing.findall("g")) == 2 * len(COMPARISON.metrics)
    assert len([r for r in drawing.findall("line") if r.get("class") == "zero"]) == 1


def test_labels_of_the_axis_do_not_lie_on_each_other() -> None:
    one = next(m for m in COMPARISON.metrics if m.ratio is not None)
    for reach in (0.0005, 0.01, 0.3, 9.0):
        drawing = forest([dataclasses.replace(one, ratio=reach, low=reach, high=reach)])
        places = sorted(
            float(t.get("x", "")) for t in drawing.findall("text") if t.get("class") == "label"
        )
        assert len(places) >= 3
        assert all(b - a > 40 for a, b in itertools.pairwise(places))


def test_a_strip_joins_the_boots_of_a_block_and_shows_each() -> None:
    table = {row.metric.id: row for row in levels.arms_table(RUN)}
    both = parsed(charts.strip(table["fault-minor"], 1))
    assert len(both.findall("circle")) == 10
    assert len([x for x in both.findall("line") if x.get("class") == "pair"]) == 5
    dots = {(c.get("cx"), c.get("cy")) for c in both.findall("circle")}
    for pair in both.findall("line"):
        assert (pair.get("x1"), pair.get("y1")) in dots
        assert (pair.get("x2"), pair.get("y2")) in dots
    titles = [c.findtext("title") or "" for c in both.findall("circle")]
    assert f"{BASE}, block 0: " in titles[0]
    alone = parsed(charts.strip(table["dirty-msync"], 2))
    assert (len(alone.findall("circle")), len(alone.findall("line"))) == (5, 0)
    assert charts.strip(table["dax-sync"], 3) == ""


def test_nothing_to_draw_is_no_drawing_and_names_are_text() -> None:
    gone = [m for m in COMPARISON.metrics if m.ratio is None]
    assert charts.forest([dataclasses.replace(COMPARISON, metrics=tuple(gone))]) == ""
    hostile = dataclasses.replace(COMPARISON, candidate="<script>alert(1)</script>\x1b")
    drawing = str(charts.forest([hostile]))
    assert "<script" not in drawing and "\x1b" not in drawing
    assert "<script" not in html.render(RUN, [hostile])
