"""Image sets in idx files: read as they lie, refused where absent or damaged, dealt to sites as arrays."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from client.sources.catalogue import read_records
from client.sources.source import Source
from common.config import plain
from common.errors import Code, Refusal
from simulations.backstage import files_digest
from simulations.datasets import dataset, write_rows
from simulations.images import image_set, read_idx
from simulations.planting import CanarySettings, plant
from simulations.provision import settle
from simulations.rebuilt import rebuilt, told
from simulations.scenario import example, read_scenario


def idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(gzip.compress(bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()))


@pytest.fixture
def folder(tmp_path):
    """A folder like HUSHFED_DATA with a small set in the names and the format of MNIST."""
    stream = np.random.default_rng(1)
    for part, count in (("train", 30), ("t10k", 10)):
        place = tmp_path / "mnist"
        idx(place / f"{part}-images-idx3-ubyte.gz", stream.integers(0, 256, (count, 28, 28), np.uint8))
        idx(place / f"{part}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8) % 10)
    return tmp_path


def refused(act, *arguments):
    with pytest.raises(Refusal) as caught:
        act(*arguments)
    return caught.value


def test_both_halves_are_read_as_they_lie(folder):
    found = image_set("mnist", folder)
    assert found.train.pixels.shape == (30, 1, 28, 28)
    assert found.test.pixels.shape == (10, 1, 28, 28)
    assert found.test.labels.tolist() == list(range(10))
    assert (found.train.pixels[:, 0] == read_idx(folder / "mnist" / "train-images-idx3-ubyte.gz")).all()
    assert "[" not in repr(found)


def test_images_reach_a_site_as_arrays_with_pixels_between_0_and_1(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HUSHFED_DATA", str(folder))
    data = dataset("mnist")
    assert len(data) == 30
    assert data.schema.shape == (1, 28, 28)
    assert data.schema.classes == 10
    path, kind = write_rows(data, [3, 1, 29], tmp_path / "sites" / "clinic-a")
    records = read_records(Source(path=path.name, kind=kind), data.schema, path.parent).records
    assert records.labels.tolist() == [3, 1, 9]
    assert np.allclose(records.inputs.numpy() * 255, data.pixels[[3, 1, 29]])


def test_cells_still_go_to_a_table(tmp_path):
    path, kind = write_rows(dataset("digits"), [0, 1], tmp_path / "a")
    assert (path.name, kind) == ("a.csv", "table")


def test_what_is_not_at_hand_is_refused_with_the_way_to_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HUSHFED_DATA", str(tmp_path))
    for name in ("mnist", "fashion-mnist"):
        refusal = refused(dataset, name)
        assert refusal.code is Code.FILE_MISSING
        assert "HUSHFED_DATA" in str(refusal)


@pytest.mark.parametrize(
    "content",
    [
        b"no gzip",
        gzip.compress(b""),
        gzip.compress(b"\0\0\x0d\x01\0\0\0\x01a"),  # floats
        gzip.compress(b"\0\0\x08\x01\0\0\0\x05abcd"),  # shorter than it says
        gzip.compress(b"\0\0\x08\x01\0\0\0\x02abcd"),  # longer
        gzip.compress(b"\0\0\x08\xff\0\0"),  # a header that does not end
        gzip.compress(bytes(4000))[:-9],
    ],
)
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "a.gz").write_bytes(content)
    assert refused(read_idx, tmp_path / "a.gz").code is Code.DATA_INVALID


def test_labels_that_do_not_fit_the_images_are_refused(folder):
    labels = folder / "mnist" / "train-labels-idx1-ubyte.gz"
    for wrong in (np.zeros(29, np.uint8), np.full(30, 10, np.uint8), np.zeros((30, 1), np.uint8)):
        idx(labels, wrong)
        assert refused(image_set, "mnist", folder).code is Code.DATA_INVALID


def test_the_real_mnist_is_the_one_that_everybody_means(public_data):
    """Means and class counts as published; a copy in another order or scale would make figures incomparable."""
    found = image_set("mnist", public_data)
    assert found.train.pixels.shape == (60_000, 1, 28, 28)
    assert found.train.pixels.mean() / 255 == pytest.approx(0.1307, abs=1e-4)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(found.train.labels).tolist() == counts
    clothes = image_set("fashion-mnist", public_data)
    assert clothes.test.pixels.shape == (10_000, 1, 28, 28)
    assert clothes.train.pixels.mean() / 255 == pytest.approx(0.2860, abs=1e-4)


def test_a_world_of_images_is_built_again_from_what_its_run_wrote_down(folder, tmp_path, monkeypatch):
    """Must: give every site the records that it had. Must not: accept images that changed since."""
    monkeypatch.setenv("HUSHFED_DATA", str(folder))
    changes = ['job.dataset="mnist"', 'job.model.name="scatternet"', "world.partition.kind='even'"]
    changes += ["world.partition.minimum=2", "world.partition.sites=3"]
    scenario = read_scenario(example("digits"), changes)
    federation = settle(scenario, tmp_path / "world")
    facts = {"world": told(scenario, files_digest(federation)), "job": plain(scenario.job)}
    sites = rebuilt(facts)
    assert sum(len(site.train) + len(site.holdout) for site in sites) == 30
    assert sites[0].train.inputs.shape[1:] == (1, 28, 28)
    pixels = read_idx(folder / "mnist" / "train-images-idx3-ubyte.gz")
    idx(folder / "mnist" / "train-images-idx3-ubyte.gz", 255 - pixels)
    assert refused(rebuilt, facts).code is Code.DATA_INVALID


def test_canaries_are_not_planted_among_arrays(folder, monkeypatch):
    monkeypatch.setenv("HUSHFED_DATA", str(folder))
    data, keys = dataset("mnist"), [bytes(32)] * 3
    assert plant(data, None, 1, keys, 0.3).data is data
    assert refused(plant, data, CanarySettings(count=4), 1, keys, 0.3).code is Code.CONFIG_INVALID
