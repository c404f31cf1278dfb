"""The table of studies: each can be built, none claims a figure without a source."""

from __future__ import annotations

import pytest

from common.errors import Refusal
from common.models.front import parted
from common.parameters import layout_of
from simulations.bench.accuracy.material import model_for
from simulations.bench.accuracy.studies import EMBEDDED, STUDIES, chosen
from simulations.datasets import DATASETS


@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda study: study.name)
def test_every_study_names_a_model_and_data_that_exist(study):
    shape = (1, 8, 8) if study.data == "digits" else (1, 28, 28)
    assert layout_of(parted(model_for(study, shape, 0))[1]).size > 0
    assert study.data in DATASETS
    assert (study.published is None) == (not study.source)
    assert 0.5 < study.aim < 1
    if study.published is not None:
        assert study.aim <= study.published  # an aim above what anybody reports would be a boast


def test_studies_are_chosen_in_the_order_of_the_table():
    assert [study.name for study in chosen(["digits-8", "digits-1"])] == ["digits-1", "digits-8"]
    assert [study.name for study in chosen(EMBEDDED)] == list(EMBEDDED)
    with pytest.raises(Refusal, match="nearest is 'digits-8'"):
        chosen(["digit-8"])
