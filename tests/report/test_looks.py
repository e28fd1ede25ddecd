# SPDX-License-Identifier: GPL-2.0-or-later
"""Every report of a run with planned looks says which one ended it, and what it asked for."""

from __future__ import annotations

import dataclasses

import pytest

from patchlab.record import StoredRun
from patchlab.report import cover, html, text
from patchlab.verdicts import compare
from tests.report import sample_run

RUN = sample_run.sample_run()


def looked(*looks: int) -> StoredRun:
    """The sample run of five blocks, as one of these planned looks."""
    sampling = dataclasses.replace(RUN.sampling, blocks=looks[-1], looks=looks)
    return dataclasses.replace(RUN, sampling=sampling)


def flat(report: str) -> str:
    return " ".join(report.split())


@pytest.mark.parametrize("render", [text.render, html.render])
def test_the_look_and_its_price_are_said(render: object) -> None:
    assert callable(render)
    run = looked(5, 10, 15)
    said = flat(render(run, compare.compare_all(run)))
    assert "5 blocks, the first of 3 planned looks" in said
    assert "looks were planned after 5, 10, 15 blocks, before the first boot" in said
    assert "each asks for p below 0.0221 instead of 0.05 (Pocock)" in said
    assert "the first look, after 5 blocks, ended the run" in said
    assert "% (97.8 %" in said and "% (95 %" not in said
    assert "blocks planned" not in said


def test_a_cover_letter_has_them_in_its_footnote() -> None:
    run = looked(3, 5)
    said = flat(cover.render(run, compare.compare_all(run)[0]))
    assert "5 blocks of one boot an arm" in said
    assert "Looks planned after 3, 5 blocks, p < 0.0" in said
    assert "t interval of 96.9 %" in said


def test_before_the_first_look_a_report_says_so() -> None:
    run = dataclasses.replace(looked(8, 16), finished="")
    said = flat(text.render(run, compare.compare_all(run)))
    assert "0 blocks, before the first of 2 planned looks" in said
    assert "no verdict before the first planned look, after 8 blocks" in said
    assert "faster" not in said and "slower" not in said


def test_a_run_without_looks_does_not_speak_of_them() -> None:
    for render in (text.render, html.render):
        said = flat(render(RUN, compare.compare_all(RUN)))
        assert "5 blocks planned" in said
        assert "look" not in said.replace("overlook", "")
