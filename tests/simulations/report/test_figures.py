"""Figures are well-formed, deterministic, escaped, and put values where the axis says."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.report.figures import Axis, Chart, Curve, Level, Whisker, around, bar, curves, strip, ticks, whiskers
from simulations.report.numbers import count, epsilon, number, percent, small


def test_a_chart_is_well_formed_and_breaks_its_line_at_missing_values():
    line = Curve(name="a & b", points=[(1, 0.1), (2, None), (3, 0.2), (4, 0.3)], style="s0")
    chart = Chart(
        title='t"<', x=Axis(low=1, high=4, label="round"), y=Axis(low=0, high=1, percent=True),
        curves=[line], levels=[Level(name="limit", value=0.5, style="limit")],
    )  # fmt: skip
    tree = ET.fromstring(curves(chart))
    assert len(tree.findall("path")) == 1
    assert len(tree.findall("circle")) == 1, "a lone point is a dot"
    assert [title.text for title in tree.iter("title")].count("a & b") == 2


def test_whiskers_are_ordered_and_undefined_ones_say_why():
    rows = [
        Whisker(name="gap", value=0.2, low=0.1, high=0.4, style="fail", note="20 %"),
        Whisker(name="none", value=None, low=None, high=None, note="too few"),
    ]
    tree = ET.fromstring(whiskers("gaps", rows, Axis(low=0, high=1, percent=True), zone=(0.0, 0.1)))
    interval = next(rect for rect in tree.findall("rect") if rect.get("class") == "range fail")
    point = tree.find("circle")
    assert point is not None
    left, right = float(interval.get("x") or 0), float(interval.get("x") or 0) + float(interval.get("width") or 0)
    assert left < float(point.get("cx") or 0) < right
    assert any(text.text == "too few" for text in tree.findall("text"))


def test_a_strip_has_a_cell_for_every_site_and_round():
    tree = ET.fromstring(strip("who", ["a", "b"], [1, 2, 3], [["present", "absent", "refused"], ["present"] * 3]))
    assert len(tree.findall("rect")) == 6
    assert ET.fromstring(strip("nobody", [], [], [])) is not None


def test_a_bar_over_its_limit_looks_different():
    assert 'class="used"' in bar("x", 1.0, 2.0)
    assert 'class="over"' in bar("x", 3.0, 2.0)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_lie_within_the_axis_and_are_few(low: float, span: float):
    found = ticks(Axis(low=low, high=low + span))
    assert len(found) <= 7
    assert found == sorted(found)
    assert all(low - 1e-6 * span - 1e-9 <= tick <= low + span + 1e-6 * span + 1e-9 for tick in found)


def test_an_axis_of_nothing_still_has_ends():
    assert around([]) == pytest.approx((-0.08, 1.08))
    low, high = around([2.0, math.inf])
    assert low < 2.0 < high


def test_numbers_are_rounded_for_people_and_exact_for_machines():
    assert number(1 / 3) == f'<data value="{1 / 3!r}">0.333</data>'
    assert percent(0.125, 0).endswith("12\u202f%</data>")
    assert count(16281).endswith(">16\u202f281</data>")
    assert small(1e-5).endswith(">1e-5</data>")
    assert small(1.41e-5).endswith(">1.5e-5</data>")
    assert [str(shown(None)) for shown in (number, percent, count, small, epsilon)] == ["—", "—", "—", "—", "∞"]


def test_epsilon_is_never_rounded_down():
    assert ">2.85<" in epsilon(2.841)
    assert ">3.00<" in epsilon(3.0)
    assert ">3.00<" in epsilon(3.0000000000000004)
