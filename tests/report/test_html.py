# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from patchlab.record import BootKind, Clock, StoredRun
from patchlab.report import html
from patchlab.verdicts import compare
from tests.report import review_run, sample_run

SECTIONS = ["checks", "metrics", "stages", "boots", "findings", "provenance", "consoles"]


class Page(HTMLParser):
    """What a browser would make of the page: its tags, its links and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.headings: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.policy = ""
        self.feed(text)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.tags.add(tag)
        self.attributes += [(tag, key, value) for key, value in given.items()]
        if tag == "h2":
            self.headings.append(given["id"])
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        if tag not in ("meta", "line", "circle", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


def page(run: StoredRun) -> Page:
    return Page(html.render(run, compare.compare_all(run)))


@pytest.fixture(scope="module")
def whole() -> Page:
    return page(sample_run.sample_run())


def test_the_sections_come_in_order_and_every_tag_is_closed(whole: Page) -> None:
    assert whole.headings == SECTIONS
    assert whole.open == []


def test_the_headline_is_one_sentence_with_the_wall_clock(whole: Page) -> None:
    assert (
        "fuse-writable-mmap@control against base: 6 of 11 checks gone (unsupported), "
        "4 passed on both, 1 regression (failed);" in whole.text
    )
    assert "wall clock of the run 14 min 3 s." in whole.text


def test_nothing_is_asked_of_a_network_and_nothing_runs(whole: Page) -> None:
    assert whole.tags.isdisjoint({"script", "link", "img", "iframe", "object", "base", "form"})
    for tag, key, value in whole.attributes:
        assert not key.startswith("on"), (tag, key)
        assert key not in ("style", "src", "srcset", "action"), (tag, key)
        assert key != "href" or value.startswith("#"), (tag, value)


def test_the_policy_allows_this_style_sheet_and_nothing_else() -> None:
    text = html.render(sample_run.sample_run(), [])
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert Page(text).policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "url(" not in style and "@import" not in style


def test_markup_from_the_guest_shows_as_text(whole: Page) -> None:
    assert "</td><script>alert('seen')</script> [bold]not markup[/bold]" in whole.text
    # Once in the finding's excerpt, once in the console log.
    assert whole.text.count("<img src=x onerror=alert(1)><script>alert('console')") == 2
    assert "\\x1b]0;title\\x07" in whole.text
    assert "\\x1b[31mreboot" in whole.text


@pytest.mark.parametrize("field", ["title", "name", "baseline", "started"])
def test_markup_in_any_head_field_shows_as_text(field: str) -> None:
    hostile = "<script>x</script>"
    run = sample_run.sample_run()
    values = {field: hostile} | ({"arms": (hostile,)} if field == "baseline" else {})
    shown = page(dataclasses.replace(run, **values))  # type: ignore[arg-type]
    assert "script" not in shown.tags
    assert hostile in shown.text


def test_metrics_name_the_clock_and_put_the_absolute_change_first(whole: Page) -> None:
    assert "Clock icount: guest instructions. It counts path length, not caches" in whole.text
    row = whole.text[whole.text.index("first write touch, XFS") :][:160]
    assert "4,514 4,495 −18.9 instructions/page −0.419 % −0.459 … −0.379 faster" in row
    assert "< 0.001" in row


def test_what_is_missing_is_said(whole: Page) -> None:
    assert "unsupported: mmap gives ENODEV" in whole.text
    assert "not a metric of the icount clock" in whole.text
    assert "SSH never came: connection refused for 60 s" in whole.text
    assert "1 boot ended as lost: base, bench, block 2 (tried again: passed)." in whole.text
    assert "1 boot ended as splat" in whole.text
    assert "unproved: never seen red" in whole.text
    assert "The console log is empty." in whole.text


def test_provenance_is_all_there(whole: Page) -> None:
    run = sample_run.sample_run()
    image = run.images[sample_run.CONTROL]
    wanted = [
        image.source_version,
        image.patches[0].patch,
        "offset",
        image.toolchain["gcc"],
        ", ".join(image.fragments),
        run.provenance.qemu,
        run.provenance.kvm,
        "-cpu max,-erms,-fsrm -icount shift=1,sleep=off",
        "AMD EPYC 7B13",
        str(run.sampling.seed),
    ]
    assert [text for text in wanted if text not in whole.text] == []


def test_the_charts_have_a_row_a_metric_and_a_dot_a_boot(whole: Page) -> None:
    comparison = compare.compare_all(sample_run.sample_run())[0]
    rows = [value for tag, key, value in whole.attributes if (tag, key) == ("g", "class")]
    assert len(rows) == len(comparison.metrics)
    assert {"row faster", "row inconclusive", "row gone", "row not-comparable"} <= set(rows)
    dots = [value for _, key, value in whole.attributes if key == "class" and "dot arm" in value]
    # Eleven metrics on base, seven on the control, five boots each.
    assert (dots.count("dot arm0"), dots.count("dot arm1")) == (55, 35)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (sample_run.one_arm, "base: nothing to compare with; all 11 checks passed"),
        (sample_run.only_checks, "No bench boot is stored: there is no result for any"),
        (sample_run.interrupted, "This run did not finish."),
        (sample_run.before_the_first_boot, "No boot is stored for this run."),
    ],
)
def test_an_incomplete_run_renders_and_says_what_it_lacks(
    make: Callable[[], StoredRun], said: str
) -> None:
    shown = page(make())
    assert shown.headings == SECTIONS
    assert said in shown.text


def test_one_arm_still_shows_its_levels() -> None:
    assert "872.7" in page(sample_run.one_arm()).text


def test_three_arms_stand_side_by_side() -> None:
    run = sample_run.sample_run()
    third = [
        dataclasses.replace(boot, variant="fuse-writable-mmap@v2")
        for boot in run.boots
        if boot.variant == sample_run.CONTROL
    ]
    arms = (*run.arms, "fuse-writable-mmap@v2")
    shown = page(dataclasses.replace(run, arms=arms, boots=(*run.boots, *third)))
    assert "fuse-writable-mmap@v2 against base: 6 of 11 checks gone" in shown.text
    assert "No image is stored for this arm" in shown.text


def test_times_without_a_clock_are_called_that() -> None:
    run = sample_run.sample_run()
    boots = tuple(
        dataclasses.replace(b, clock=Clock.TCG) if b.kind is BootKind.BENCH else b
        for b in run.boots
    )
    shown = page(dataclasses.replace(run, clock=Clock.TCG, boots=boots))
    assert "Times were taken under TCG without icount: they get no verdict." in shown.text
    assert "faster" not in shown.text


def test_a_reviewed_run_has_its_ledger_and_levels_first() -> None:
    shown = page(review_run.review_run())
    assert shown.headings == ["ledger", "levels", *SECTIONS]
    assert shown.open == []
    assert "demo: v2 meets 3 of 7 demands (v1: 2 of 8); undecided: killable" in shown.text
    row = shown.text[shown.text.index("what no-leak asks for") :]
    assert row.startswith("what no-leak asks for A Reviewer, 2009-06-23 open D2 failed")
    assert review_run.LEAK in row
    assert "mmap returns the error that COMMIT carries" in shown.text
    pills = [value for tag, key, value in shown.attributes if (tag, key) == ("span", "class")]
    assert pills.count("pill open") == 4 and pills.count("pill answered") == 1


def test_markup_from_a_patch_shows_as_text_in_the_ledger() -> None:
    shown = page(review_run.review_run())
    assert "script" not in shown.tags
    assert "0001-x.patch: </p><script>alert('patch')</script> [red]no markup[/red]" in shown.text
    demand = dataclasses.replace(review_run.ASKED.demands[0], id="<b>x</b>", demand="<i>y</i>")
    asked = dataclasses.replace(review_run.ASKED, title="<u>z</u>", demands=(demand,))
    hostile = page(dataclasses.replace(review_run.review_run(), asked=(asked,)))
    assert "<b>x</b>" in hostile.text and "<i>y</i>" in hostile.text and "<u>z</u>" in hostile.text


def test_the_table_of_levels_names_unit_spread_and_where_a_comparator_is_from() -> None:
    shown = page(review_run.review_run())
    table = shown.text[shown.text.index("Operation demo@v1") :][:600]
    assert "tmpfs on base DIRECT_IO on demo@v1" in table
    assert "map and unmap instructions/map, median of a boot 40,000 ±0.1 %, 3 boots" in table
    assert "not timed" in table
    assert "Clock icount: guest instructions." in shown.text
