"""Settings: a tree of frozen values, deaf to nothing, coerced nowhere, with one canonical form."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import canonical, digest, finite, load, one_of, plain, read
from common.errors import Code, Refusal


@dataclass(frozen=True, kw_only=True)
class Leaf:
    colour: str
    weight: float = 1.0
    kind: Literal["oak", "ash"] = "oak"

    def __post_init__(self) -> None:
        finite(self.weight, "weight", above=0, at_most=10)


@dataclass(frozen=True, kw_only=True)
class Tree:
    height: int
    grown: bool = False
    leaf: Leaf | None = None
    leaves: tuple[Leaf, ...] = ()
    notes: dict[str, int | str] = field(default_factory=dict)


FULL: dict[str, Any] = {
    "height": 3,
    "grown": True,
    "leaf": {"colour": "red", "weight": 2.0},
    "leaves": [{"colour": "green", "kind": "ash"}, {"colour": "red"}],
    "notes": {"age": 4, "owner": "nobody"},
}


def refusal(kind: type[Any], table: dict[str, Any], where: str = "") -> Refusal:
    with pytest.raises(Refusal) as refused:
        load(kind, table, where)
    assert refused.value.code is Code.CONFIG_INVALID
    return refused.value


def test_a_table_becomes_the_tree_it_describes() -> None:
    tree = load(Tree, FULL)
    assert tree == Tree(
        height=3,
        grown=True,
        leaf=Leaf(colour="red", weight=2.0),
        leaves=(Leaf(colour="green", kind="ash"), Leaf(colour="red")),
        notes={"age": 4, "owner": "nobody"},
    )


@pytest.mark.parametrize(
    ("change", "wrong", "near", "place"),
    [
        ({"heigth": 3}, "heigth", "height", "The file"),
        ({"leaf": {"colour": "red", "wieght": 1.0}}, "wieght", "weight", "[leaf]"),
        ({"leaves": [{"colour": "red"}, {"color": "red"}]}, "color", "colour", "[leaves]"),
    ],
)
def test_an_unknown_setting_is_refused_anywhere_and_the_nearest_is_named(
    change: dict[str, Any], wrong: str, near: str, place: str
) -> None:
    found = refusal(Tree, {**FULL, **change})
    assert place in found.what
    assert repr(wrong) in found.what
    assert repr(near) in found.why


def test_a_setting_like_no_other_is_refused_with_all_known_names() -> None:
    found = refusal(Tree, {**FULL, "zzz": 1}, "world")
    assert "[world]" in found.what
    assert found.why == "it knows grown, height, leaf, leaves, notes"


@pytest.mark.parametrize(
    "change",
    [
        {"height": "3"},
        {"height": 3.5},
        {"height": True},
        {"height": None},
        {"grown": 1},
        {"grown": "true"},
        {"leaf": []},
        {"leaf": "red"},
        {"leaf": {"colour": 3}},
        {"leaf": {"colour": "red", "weight": "1"}},
        {"leaf": {"colour": "red", "weight": True}},
        {"leaf": {"colour": "red", "kind": "elm"}},
        {"leaves": {}},
        {"leaves": "red"},
        {"notes": {"age": 1.5}},
    ],
    ids=str,
)
def test_nothing_is_coerced(change: dict[str, Any]) -> None:
    refusal(Tree, {**FULL, **change})


def test_a_missing_setting_is_refused_by_name() -> None:
    assert "height" in refusal(Tree, {}).why
    assert "colour" in refusal(Tree, {"height": 1, "leaf": {}}).why


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, -(10**400), True])
def test_what_is_no_finite_number_is_refused(value: float) -> None:
    with pytest.raises(Refusal) as refused:
        finite(value, "size")
    assert refused.value.code is Code.CONFIG_INVALID
    finite(2**53, "size", above=0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    found = refusal(Tree, {"height": 1, "leaf": {"colour": "red", "weight": value}})
    assert "weight" in found.what
    with pytest.raises(Refusal) as refused:
        canonical({"a": [1.0, value]})
    assert refused.value.code is Code.CONFIG_INVALID


@pytest.mark.parametrize(("value", "fits"), [(0.0, False), (1e-300, True), (10.0, True), (10.1, False), (True, False)])
def test_a_bounded_number_excludes_its_lower_end_and_no_bool_is_a_number(value: float, fits: bool) -> None:
    if fits:
        finite(value, "weight", above=0, at_most=10)
    else:
        with pytest.raises(Refusal, match="above 0 and at most 10"):
            finite(value, "weight", above=0, at_most=10)


@pytest.mark.parametrize(
    ("ends", "value", "said"),
    [
        ({"below": 1}, 1, "below 1"),
        ({"at_least": 0}, -1, "at least 0"),
        ({"above": 0, "below": 1}, 0, "above 0 and below 1"),
        ({"at_most": 2**53}, 2**53 + 2, "at most 9007199254740992"),
    ],
)
def test_a_range_is_told_exactly_as_it_is_checked(ends: dict[str, float], value: float, said: str) -> None:
    with pytest.raises(Refusal) as refused:
        finite(value, "delta", **ends)
    assert refused.value.why == f"it must be {said}"
    finite(0.5, "delta", **ends)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_of_a_number_that_is_not_finite_it_is_said_that_it_is_not(value: float) -> None:
    """Must: name the ends all the same. Must not: say that infinity must be above 0, which it is."""
    with pytest.raises(Refusal) as refused:
        finite(value, "learning_rate", above=0)
    assert (refused.value.why, refused.value.do) == ("it is not a finite number", "Give a number above 0")
    with pytest.raises(Refusal) as refused:
        finite(value, "bias")
    assert (refused.value.why, refused.value.do) == ("it is not a finite number", "Give a finite number")


def test_a_whole_number_beyond_every_float_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        finite(10**400, "weight", above=0)
    assert refused.value.why == "it is too large to be computed with"


@pytest.mark.parametrize(
    "change", [{"leaf": {"colour": "red", "kind": "elm"}}, {"leaves": [{"colour": "r", "kind": "e"}]}]
)
def test_a_wrong_choice_is_refused_with_all_there_are(change: dict[str, Any]) -> None:
    assert refusal(Tree, {**FULL, **change}).why.endswith("it knows oak, ash")


def test_a_name_outside_a_catalogue_is_refused_with_the_nearest() -> None:
    one_of("oak", "tree", ("oak", "ash"))
    with pytest.raises(Refusal, match="the nearest is 'oak'"):
        one_of("oka", "tree", ("oak", "ash"))


LEAVES = st.builds(
    Leaf,
    colour=st.text(max_size=8),
    weight=st.floats(0, 10, exclude_min=True, allow_nan=False),
    kind=st.sampled_from(["oak", "ash"]),
)
TREES = st.builds(
    Tree,
    height=st.integers(-(2**63), 2**63 - 1),
    grown=st.booleans(),
    leaf=st.none() | LEAVES,
    leaves=st.lists(LEAVES, max_size=3).map(tuple),
    notes=st.dictionaries(st.text(max_size=4), st.integers(-(2**63), 2**63 - 1) | st.text(max_size=4), max_size=3),
)


@given(TREES)
def test_every_value_comes_back_from_its_plain_and_from_its_canonical_form(tree: Tree) -> None:
    assert load(Tree, plain(tree)) == tree
    again = load(Tree, json.loads(canonical(tree)))
    assert again == tree
    assert canonical(again) == canonical(tree)
    assert digest(again) == digest(tree)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*FULL, "colour", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*FULL, "x"]), JSON, max_size=5))
def test_any_table_is_loaded_or_refused(table: dict[str, Any]) -> None:
    try:
        tree = load(Tree, table)
    except Refusal as refused:
        found = refused.code
    else:
        assert load(Tree, plain(tree)) == tree
        return
    assert found is Code.CONFIG_INVALID


def test_equal_values_have_one_form_however_they_were_made() -> None:
    """Must: spell out a default that a file left out. Must not: let a digest tell a file from a constructor."""
    read, made = load(Tree, {"height": 3, "leaf": {"colour": "red"}}), Tree(height=3, leaf=Leaf(colour="red"))
    assert read == made
    assert plain(read) == plain(made)
    assert digest(read) == digest(made)
    assert plain(read)["leaf"] == {"colour": "red", "weight": 1.0, "kind": "oak"}


def test_the_canonical_form_is_ascii_sorted_and_without_spaces() -> None:
    value = {"b": 1.0, "a": ["ä", None, True], "c": {"z": 1, "y": ()}}
    assert canonical(value) == b'{"a":["\\u00e4",null,true],"b":1.0,"c":{"y":[],"z":1}}'
    assert canonical(dict(reversed(list(value.items())))) == canonical(value)
    assert digest({"a": 1}) != digest({"a": 1.0})


def test_a_file_is_read_or_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "tree.toml"
    with pytest.raises(Refusal, match="no such file") as refused:
        read(Tree, path)
    assert refused.value.code is Code.FILE_MISSING
    for wrong in ("heigth = 3", 'height = "3"', 'height = 3\nleaf = {colour = "red", weight = 99.0}'):
        path.write_text(wrong)
        with pytest.raises(Refusal) as refused:
            read(Tree, path)
        assert str(path) in refused.value.what
    path.write_text('height = 3\n[[leaves]]\ncolour = "red"\n')
    assert read(Tree, path).leaves[0].colour == "red"
    for broken in (b"height = ", b"height = 3\nheight = 4", b"\xff\xfe"):
        path.write_bytes(broken)
        with pytest.raises(Refusal, match="not TOML") as refused:
            read(Tree, path)
        assert refused.value.code is Code.CONFIG_INVALID
    with pytest.raises(Refusal) as refused:
        read(Tree, tmp_path)
    assert refused.value.code is Code.FILE_MISSING
