"""The public schema, the arrays it gives, and the keyed split."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from common import config
from common.data import Attribute, Feature, Image, Label, Records, Schema, fingerprint, record_id, split
from common.errors import Code, Refusal

KEY = b"k" * 16
TOML = {
    "features": [
        {"name": "age", "range": [18, 90]},
        {"name": "sex", "categories": ["female", "male"], "missing": "midpoint"},
    ],
    "label": {"column": "score", "above": 140.0},
    "sensitive": [{"name": "sex", "categories": ["female", "male"]}, {"name": "age", "edges": [40, 60]}],
}


def records(ids: list[bytes]) -> Records:
    n = len(ids)
    zeros = torch.zeros(n, dtype=torch.int64)
    return Records(torch.arange(n, dtype=torch.float32)[:, None], zeros, zeros, tuple(ids))


def test_a_schema_comes_from_a_job_and_goes_back_unchanged() -> None:
    schema = config.load(Schema, TOML)
    assert schema.shape == (3,)
    assert schema.classes == 2
    assert config.load(Schema, config.plain(schema)) == schema
    assert config.digest(config.load(Schema, config.plain(schema))) == config.digest(schema)


def test_groups_are_the_product_of_all_attributes_with_unknown_last() -> None:
    groups = config.load(Schema, TOML).groups
    assert len(groups) == 3 * 4
    assert groups[0] == "sex=female, age=<40"
    assert groups[5] == "sex=male, age=40-60"
    assert groups[-1] == "sex=unknown, age=unknown"


def test_without_sensitive_attributes_there_is_one_group() -> None:
    schema = Schema(image=Image(shape=(1, 2, 2), range=(0.0, 1.0)), label=Label(column="y", classes=("a", "b", "c")))
    assert schema.groups == ("all",)
    assert schema.shape == (1, 2, 2)
    assert [column.name for column in schema.columns] == ["pixel0", "pixel1", "pixel2", "pixel3"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"features": [{"name": "age"}]}, "public range or categories"),
        ({"features": [{"name": "age", "range": [90, 18]}]}, "low before high"),
        ({"features": [{"name": "age", "range": [0, 1]}] * 2}, "occurs twice"),
        ({"features": [{"name": "score", "range": [0, 1]}]}, "the label itself"),
        ({"features": []}, "features or an image"),
        ({"label": {"column": "score"}}, "threshold"),
        ({"label": {"column": "score", "classes": ["one"]}}, "nothing to predict"),
        ({"label": {"column": "score", "above": float("inf")}}, "not finite"),
        ({"sensitive": [{"name": "age", "edges": [60, 40]}]}, "increase"),
        ({"sensitive": [{"name": "sex", "categories": ["unknown"]}]}, "occurs twice"),
        ({"sensitive": [{"name": "sex"}]}, "categories or edges"),
        ({"features": [{"name": "age", "rnage": [0, 1]}]}, "nearest is 'range'"),
    ],
)
def test_a_schema_that_cannot_be_is_refused(change: dict[str, object], told: str) -> None:
    with pytest.raises(Refusal, match=told) as refused:
        config.load(Schema, {**TOML, **change})
    assert refused.value.code is Code.CONFIG_INVALID


def test_too_many_groups_are_refused() -> None:
    many = tuple(Attribute(name=f"a{i}", categories=tuple(f"c{j}" for j in range(10))) for i in range(3))
    with pytest.raises(Refusal, match="groups"):
        Schema(features=(Feature(name="x", range=(0.0, 1.0)),), label=Label(column="y", above=0.0), sensitive=many)


def test_records_of_different_lengths_are_refused() -> None:
    with pytest.raises(Refusal, match="differ in length"):
        Records(torch.zeros(2, 1), torch.zeros(1), torch.zeros(2), (b"a", b"b"))


def test_records_never_print_their_content() -> None:
    assert repr(records([b"secret"])) == "Records"


@given(some.lists(some.binary(min_size=16, max_size=16), max_size=60, unique=True), some.floats(0.01, 0.99))
def test_every_record_falls_into_exactly_one_part(ids: list[bytes], holdout: float) -> None:
    train, held = split(records(ids), KEY, holdout)
    assert sorted(train.ids + held.ids) == sorted(ids)
    assert not set(train.ids) & set(held.ids)


@given(some.lists(some.binary(min_size=16, max_size=16), min_size=1, max_size=40, unique=True), some.data())
def test_removing_one_record_moves_no_other(ids: list[bytes], data: some.DataObject) -> None:
    """Must: change one part by one record. Must not: touch the other part. Parallel composition rests on this."""
    gone = data.draw(some.sampled_from(ids))
    order = data.draw(some.permutations([one for one in ids if one != gone]))
    before = [set(part.ids) for part in split(records(ids), KEY, 0.3)]
    after = [set(part.ids) for part in split(records(list(order)), KEY, 0.3)]
    assert [one - {gone} for one in before] == after


def test_the_split_depends_on_the_key_and_holds_out_the_asked_share() -> None:
    ids = [record_id([str(i).encode()]) for i in range(4000)]
    held = split(records(ids), KEY, 0.25)[1]
    assert 0.22 < len(held) / 4000 < 0.28
    assert split(records(ids), b"another key of 16", 0.25)[1].ids != held.ids
    assert held.inputs[:, 0].tolist() == [ids.index(one) for one in held.ids]


@pytest.mark.parametrize(("key", "holdout"), [(b"short", 0.5), (KEY, 0.0), (KEY, 1.0), (KEY, float("nan"))])
def test_a_weak_key_or_a_share_out_of_range_is_refused(key: bytes, holdout: float) -> None:
    with pytest.raises(Refusal) as refused:
        split(records([b"a"]), key, holdout)
    assert refused.value.code is Code.CONFIG_INVALID


def test_a_fingerprint_names_the_set_under_a_key() -> None:
    one, two = records([b"a" * 16, b"b" * 16]), records([b"b" * 16, b"a" * 16])
    assert fingerprint(one, KEY) == fingerprint(two, KEY)
    assert fingerprint(one, KEY) != fingerprint(one, b"z" * 16)
    assert fingerprint(one, KEY) != fingerprint(records([b"a" * 16]), KEY)


def test_cells_that_run_together_are_different_records() -> None:
    assert record_id([b"ab", b"c"]) != record_id([b"a", b"bc"])
