"""Data sets to simulate with: two that come with scikit-learn; public tables and images where they are at hand."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.sources.columns import Encoder
from common.config import one_of
from common.data import Attribute, Feature, Image, Label, Schema
from common.errors import Code, Refusal
from simulations.images import SCHEMA, image_set, writers
from simulations.public_data import absent, public_folder

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
AGE_BANDS = Attribute(name="age", edges=(40.0, 60.0))
SEXES = ("female", "male")


@dataclass(frozen=True)
class Dataset:
    """Rows as a site would export them, with the public schema that reads them.

    columns  cells as text by column name, all of one length; none where the rows are images as arrays
    labels   class numbers [n], for partitioners and, with images, what is predicted
    home     column that says to which site a row belongs by nature, or ""
    pixels   uint8 [n, channels, height, width], or None where the rows are cells
    homes    further values by which rows belong together: writers, patients; no site's table holds them
    """

    name: str
    summary: str
    schema: Schema
    columns: Mapping[str, Sequence[str]] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    home: str = ""
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False)
    homes: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.labels)


def dataset(name: str) -> Dataset:
    """The data set `name`. Errors: Refusal CONFIG_INVALID for an unknown one, FILE_MISSING where it is not at hand."""
    one_of(name, "data", DATASETS.keys())
    return DATASETS[name]()


def homes_of(data: Dataset, column: str) -> Sequence[str]:
    """What `column` says of each row: a column of the table, or one of `Dataset.homes`. Errors: Refusal."""
    known = {**data.columns, **data.homes}
    if not known:
        why = "these rows have no columns; what they belong to may lie in a file that is not at hand"
        raise Refusal(Code.CONFIG_INVALID, f"partition.column = {column!r}", why, "Choose another partition")
    one_of(column, "partition.column", known)
    return known[column]


def groups_of(data: Dataset, name: str) -> Sequence[str]:
    """The value of the sensitive attribute `name` of each row, "unknown" where it is absent. Errors: Refusal."""
    attributes = {attribute.name: attribute for attribute in data.schema.sensitive}
    if not attributes:
        why = f"{data.name!r} has no sensitive attribute"
        raise Refusal(Code.CONFIG_INVALID, f"partition.column = {name!r}", why, "Choose another partition")
    one_of(name, "partition.column", attributes)
    attribute = attributes[name]
    positions = Encoder(range(len(data)), ()).positions(attribute, data.columns[attribute.source])
    return [attribute.values[position] for position in positions]


def write_rows(data: Dataset, rows: Sequence[int] | NDArray[np.int64], stem: Path) -> tuple[Path, str]:
    """Write these rows, in this order, as a site holds them; the file, and the kind of source that reads it.

    stem  path of the file without its ending
    """
    if data.pixels is None:
        path = stem.with_name(f"{stem.name}.csv")
        write_csv(data, rows, path)
        return path, "table"
    path = stem.with_name(f"{stem.name}.npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    index = np.asarray(rows, np.int64)
    np.savez(path, inputs=data.pixels[index], labels=data.labels[index])
    return path, "arrays"


def write_csv(data: Dataset, rows: Sequence[int] | NDArray[np.int64], path: Path) -> None:
    """Write these rows as the table of one site, in this order, with a header line; the column `home` is left out."""
    names = [name for name in data.columns if name != data.home]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([data.columns[name][row] for name in names] for row in map(int, rows))


def clinics() -> Dataset:
    """442 diabetes patients (Efron et al. 2004): does the disease progress by more than 140 within a year?

    Ranges are clinical knowledge, wide enough for adults in care, not the extremes of these patients.
    The source codes sex as 1 and 2 without naming them; here 1 is called female.
    """
    from sklearn.datasets import load_diabetes

    found = load_diabetes(scaled=False)
    columns = {name: [f"{value:g}" for value in found.data[:, i]] for i, name in enumerate(found.feature_names)}
    columns["sex"] = [SEXES[int(value) - 1] for value in found.data[:, 1]]
    columns["progression"] = [f"{value:g}" for value in found.target]
    numbers = {
        "age": (18, 90),  # years
        "bmi": (15, 45),  # kg/m2
        "bp": (60, 130),  # mean arterial pressure, mmHg
        "s1": (100, 300),  # total cholesterol, mg/dl
        "s2": (40, 220),  # LDL, mg/dl
        "s3": (20, 100),  # HDL, mg/dl
        "s4": (2, 8),  # total cholesterol to HDL
        "s5": (3.5, 6.5),  # log of triglycerides: 33 to 665 mg/dl
        "s6": (60, 130),  # fasting glucose, mg/dl
    }
    schema = Schema(
        features=(*_numbers(numbers), Feature(name="sex", categories=SEXES)),
        label=Label(column="progression", above=140.0),
        sensitive=(Attribute(name="sex", categories=SEXES), AGE_BANDS),
    )
    labels = (found.target > 140).astype(np.int64)
    return Dataset("clinics", "diabetes progression of 442 patients, 10 measurements", schema, columns, labels)


def digits() -> Dataset:
    """1797 handwritten digits of 8x8 pixels from 0 to 16 (Alpaydin and Kaynak 1998); no sensitive attribute."""
    from sklearn.datasets import load_digits

    found = load_digits()
    image = Image(shape=(1, 8, 8), range=(0.0, 16.0))
    columns = {column.name: [f"{v:g}" for v in found.data[:, i]] for i, column in enumerate(image.columns)}
    columns["digit"] = [str(value) for value in found.target]
    schema = Schema(image=image, label=Label(column="digit", classes=tuple("0123456789")))
    return Dataset("digits", "1797 handwritten digits, 8x8 pixels", schema, columns, found.target.astype(np.int64))


def heart(folder: Path | None = None) -> Dataset:
    """920 patients of four hospitals (Detrano et al. 1989; UCI 45, CC BY 4.0): is there heart disease (num > 0)?

    folder  that holds `heart-disease-4-hospitals`; otherwise the environment's HUSHFED_DATA
    Many values are absent; they are imputed by the public middle of their range. Hospitals are the natural sites.
    """
    rows = [
        (hospital, line.split(","))
        for hospital in HOSPITALS
        for line in _hospital(folder, f"processed.{hospital}.data").split()
    ]
    names = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "num")
    places = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13)  # ca and thal are absent outside Cleveland
    cells = {name: [_plain(row[place]) for _, row in rows] for name, place in zip(names, places, strict=True)}
    cells["sex"] = [{"0": "female", "1": "male"}.get(cell, "") for cell in cells["sex"]]
    # Zero stands for "not measured" in these two columns (all of Zurich's cholesterol): no living patient has it.
    for name in ("chol", "trestbps"):
        cells[name] = ["" if cell == "0" else cell for cell in cells[name]]
    schema = Schema(
        features=_heart_features(),
        label=Label(column="num", above=0.0),
        sensitive=(Attribute(name="sex", categories=SEXES), AGE_BANDS),
    )
    columns = {"hospital": [hospital for hospital, _ in rows], **cells}
    labels = np.array([float(cell) > 0 for cell in cells["num"]], np.int64)
    return Dataset("heart", "heart disease of 920 patients in four hospitals", schema, columns, labels, "hospital")


def mnist() -> Dataset:
    """60 000 handwritten digits (LeCun et al. 1998), the training half of the standard split.

    Where QMNIST's labels (Yadav and Bottou 2019) lie beside them, images belong together by `writer` (539 of them)
    and by `series` (0: employees of the census, 4: students).
    """
    return replace(_images("mnist", "60000 handwritten digits, 28x28 pixels"), homes=writers())


def fashion_mnist() -> Dataset:
    """60 000 pictures of clothes (Xiao, Rasul and Vollgraf 2017), the training half of the standard split."""
    return _images("fashion-mnist", "60000 pictures of clothes in ten kinds, 28x28 pixels")


def _images(name: str, summary: str) -> Dataset:
    half = image_set(name).train
    return Dataset(name, summary, SCHEMA, {}, half.labels, pixels=half.pixels)


def _heart_features() -> tuple[Feature, ...]:
    numbers: dict[str, tuple[float, float]] = {
        "age": (18, 90),
        "trestbps": (80, 200),  # resting blood pressure, mmHg
        "chol": (100, 400),  # mg/dl
        "thalach": (60, 220),  # highest heart rate
        "oldpeak": (0, 5),  # ST depression, mm
    }
    categories = {
        "sex": SEXES,
        "cp": ("1", "2", "3", "4"),  # kind of chest pain
        "fbs": ("0", "1"),  # fasting glucose above 120 mg/dl
        "restecg": ("0", "1", "2"),
        "exang": ("0", "1"),  # angina under exercise
        "slope": ("1", "2", "3"),
    }
    chosen = (Feature(name=name, categories=known, missing="midpoint") for name, known in categories.items())
    return (*_numbers(numbers, missing=True), *chosen)


def _numbers(ranges: Mapping[str, tuple[float, float]], *, missing: bool = False) -> tuple[Feature, ...]:
    """Number columns with their public ranges; with `missing`, absent values take the middle."""
    return tuple(
        Feature(name=name, range=(float(low), float(high)), missing="midpoint" if missing else "refuse")
        for name, (low, high) in ranges.items()
    )


def _hospital(folder: Path | None, name: str) -> str:
    place = folder or public_folder()
    path = place / "heart-disease-4-hospitals" / name
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        raise absent(path) from None


def _plain(cell: str) -> str:
    """ "1.0" as "1": the hospitals write the same number in different ways; "?" as the empty cell."""
    return "" if cell == "?" else f"{float(cell):g}"


def _diabetes() -> Dataset:
    from simulations.public_tables import diabetes

    return diabetes()


def _air() -> Dataset:
    from simulations.public_tables import air

    return air()


DATASETS: Mapping[str, Callable[[], Dataset]] = {
    "clinics": clinics,
    "digits": digits,
    "heart": heart,
    "diabetes-130": _diabetes,
    "beijing-air": _air,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
}
