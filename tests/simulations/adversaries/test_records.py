"""Attacks on records: what changes, what must not, and by what success is measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from common.data import Feature as Column
from common.data import Image, Label, Records, Schema
from common.errors import Code, Refusal
from simulations.adversaries.catalogue import ON_RECORDS, on_records

IMAGES = Schema(label=Label(column="y", classes=("a", "b", "c")), image=Image(shape=(1, 4, 4), range=(0.0, 255.0)))
TABLE = Schema(
    label=Label(column="y", above=0.0), features=tuple(Column(name=f"x{i}", range=(-1.0, 1.0)) for i in range(5))
)
NEEDED: dict[str, dict[str, Any]] = {
    "targeted-flip": {"source": 1, "target": 0},
    "patch": {"target": 0, "size": 2, "share": 0.5},
    "edge-case": {"source": 1, "target": 0},
    "tail": {"source": 1, "target": 0, "share": 0.25},
}


def records(schema: Schema, count: int = 60) -> Records:
    stream = torch.Generator().manual_seed(1)
    inputs = torch.rand((count, *schema.shape), generator=stream)
    labels = torch.randint(schema.classes, (count,), generator=stream)
    ids = tuple(bytes([i]) * 16 for i in range(count))
    return Records(inputs, labels, torch.zeros(count, dtype=torch.int64), ids)


def attacked(name: str, schema: Schema = IMAGES, seed: int = 5, **chosen: Any) -> tuple[Records, Records]:
    before = records(schema)
    return before, on_records(name, schema, **{**NEEDED.get(name, {}), **chosen}).poison(before, seed)


def changed(before: Records, after: Records) -> np.ndarray:
    same_inputs = (before.inputs == after.inputs).flatten(1).all(1)
    return ~(same_inputs & (before.labels == after.labels)).numpy()


CASES = [(name, schema) for name in ON_RECORDS for schema in (IMAGES, TABLE) if schema is IMAGES or name != "edge-case"]


@pytest.mark.parametrize(("name", "schema"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_changed_records_are_others_and_the_rest_is_as_it_was(name: str, schema: Schema) -> None:
    before, after = attacked(name, schema)
    kept = records(schema)
    assert torch.equal(before.inputs, kept.inputs)
    assert torch.equal(before.labels, kept.labels)
    moved = changed(before, after)
    assert moved.any()
    assert len(after) == len(before)
    assert all(new != old for new, old, did in zip(after.ids, before.ids, moved, strict=True) if did)
    assert len(set(after.ids)) == len(after)
    assert after.inputs.dtype == torch.float32
    again = attacked(name, schema)[1]
    assert torch.equal(after.inputs, again.inputs)
    assert after.ids == again.ids


def test_labels_are_turned_round() -> None:
    before, after = attacked("label-flip")
    assert torch.equal(after.labels, 2 - before.labels)
    assert torch.equal(after.inputs, before.inputs)
    assert on_records("label-flip", IMAGES).trigger is None


def test_a_targeted_flip_leaves_other_classes_alone() -> None:
    before, after = attacked("targeted-flip", share=0.5)
    moved = changed(before, after)
    assert moved.sum() == round(0.5 * int((before.labels == 1).sum()))
    assert (before.labels.numpy()[moved] == 1).all()
    assert (after.labels.numpy()[moved] == 0).all()
    other = changed(*attacked("targeted-flip", share=0.5, seed=6))
    assert not np.array_equal(moved, other)


def test_a_patch_lights_the_last_corner_and_names_the_target() -> None:
    before, after = attacked("patch")
    lit = (after.inputs[:, :, -2:, -2:] == 1.0).flatten(1).all(1)
    assert int(lit.sum()) == 30
    assert (after.labels[lit] == 0).all()
    assert torch.equal(after.inputs[:, :, :2], before.inputs[:, :, :2])
    assert torch.equal(after.inputs[~lit], before.inputs[~lit])
    table = attacked("patch", TABLE, share=1.0)[1]
    assert (table.inputs[:, -2:] == 1.0).all()


def test_edge_cases_are_mirrored_images_of_one_class() -> None:
    before, after = attacked("edge-case")
    source = before.labels == 1
    assert torch.equal(after.inputs[source], before.inputs[source].flip(-1))
    assert (after.labels[source] == 0).all()
    assert torch.equal(after.inputs[~source], before.inputs[~source])


def test_the_tail_is_what_lies_farthest_from_the_class_s_mean() -> None:
    before, after = attacked("tail")
    source = (before.labels == 1).numpy()
    inputs = before.inputs.flatten(1).numpy()
    away = np.linalg.norm(inputs - inputs[source].mean(axis=0), axis=1)
    moved = changed(before, after)
    assert moved.sum() == round(0.25 * source.sum())
    assert away[moved].min() > away[source & ~moved].max()


@pytest.mark.parametrize("name", NEEDED)
def test_success_is_measured_on_records_that_the_attacker_does_not_own_already(name: str) -> None:
    """Must: want the target for records of other classes. Must not: count what is of the target class anyway."""
    held_out = records(IMAGES)
    trigger = on_records(name, IMAGES, **NEEDED[name]).trigger
    assert trigger is not None
    wanted = trigger(held_out)
    assert (wanted.labels == 0).all()
    origin = {bytes([i]) * 16: i for i in range(len(held_out))}
    assert not set(wanted.ids) & set(origin)
    share = {"patch": 1.0, "tail": 0.25}.get(name, 1.0)
    of = (held_out.labels != 0) if name == "patch" else (held_out.labels == 1)
    assert len(wanted) == round(share * int(of.sum()))
    assert torch.equal(held_out.labels, records(IMAGES).labels)


def test_a_site_without_such_records_has_nothing_to_change() -> None:
    lone = records(IMAGES).take(np.flatnonzero(records(IMAGES).labels.numpy() == 2))
    for name in ("targeted-flip", "edge-case", "tail"):
        attack = on_records(name, IMAGES, **NEEDED[name])
        assert attack.poison(lone, 1).ids == lone.ids
        assert attack.trigger is not None
        assert len(attack.trigger(lone)) == 0


@pytest.mark.parametrize(
    ("name", "schema", "chosen", "told"),
    [
        ("label-flop", IMAGES, {}, "nearest is 'label-flip'"),
        ("targeted-flip", IMAGES, {"source": 1, "target": 1}, "nothing would change"),
        ("targeted-flip", IMAGES, {"source": 1, "target": 3}, "at most 2"),
        ("targeted-flip", IMAGES, {"source": 1, "target": 0, "share": 0.0}, "above 0"),
        ("patch", IMAGES, {"target": 0, "size": 5, "share": 0.5}, "smaller patch"),
        ("patch", IMAGES, {"target": 0, "size": 2}, "share"),
        ("edge-case", TABLE, {"source": 1, "target": 0}, "only images"),
    ],
)
def test_an_attack_that_does_not_fit_is_refused(name: str, schema: Schema, chosen: dict[str, Any], told: str) -> None:
    with pytest.raises(Refusal, match=told) as caught:
        on_records(name, schema, **chosen)
    assert caught.value.code is Code.CONFIG_INVALID
