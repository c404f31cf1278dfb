"""Public tables whose records belong together by nature: hospital stays by patient and ward, air by station."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from common.data import Attribute, Feature, Label, Schema
from common.errors import Code, Refusal
from simulations.datasets import Dataset
from simulations.public_data import absent, public_folder

STATIONS = [
    "Aotizhongxin",
    "Changping",
    "Dingling",
    "Dongsi",
    "Guanyuan",
    "Gucheng",
    "Huairou",
    "Nongzhanguan",
    "Shunyi",
    "Tiantan",
    "Wanliu",
    "Wanshouxigong",
]
RACES = ("AfricanAmerican", "Asian", "Caucasian", "Hispanic", "Other")
DECADES = tuple(f"[{low}-{low + 10})" for low in range(0, 100, 10))
WINDS = ("N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE", "S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW")
UNHEALTHY = 75.0  # µg/m3 of PM2.5: China's limit of a day, and the first interim target of the WHO
NOON = "12"

Cells = dict[str, list[str]]


def diabetes(folder: Path | None = None) -> Dataset:
    """101 766 stays of diabetics in 130 US hospitals (Strack et al. 2014; UCI 296, CC BY 4.0): readmitted later?

    folder  that holds `diabetes-130-hospitals`; otherwise the environment's HUSHFED_DATA
    Hospitals are not named. Stays belong together by `specialty` of the admitting physician, `payer`, `source` of
    the admission, and `patient`: many have several stays, and only a deal by patient keeps these at one site.
    """
    rows = _rows(folder, "diabetes-130-hospitals", "diabetic_data.csv.gz")
    cells = {name: ["" if row[name] == "?" else row[name] for row in rows] for name in (*_STAY, *_CHOICES, "race")}
    cells["gender"] = [row["gender"].lower() if row["gender"] in ("Female", "Male") else "" for row in rows]
    cells["readmitted"] = ["no" if row["readmitted"] == "NO" else "yes" for row in rows]
    numbers = (Feature(name=name, range=(float(low), float(high))) for name, (low, high) in _STAY.items())
    chosen = (Feature(name=name, categories=known) for name, known in _CHOICES.items())
    people = {"race": RACES, "gender": ("female", "male")}
    schema = Schema(
        features=(
            *numbers,
            *chosen,
            *(Feature(name=name, categories=known, missing="midpoint") for name, known in people.items()),
        ),
        label=Label(column="readmitted", classes=("no", "yes")),
        sensitive=tuple(Attribute(name=name, categories=known) for name, known in {**people, "age": DECADES}.items()),
    )
    homes = {name: [row[column] for row in rows] for name, column in _BELONGING.items()}
    labels = np.array([cell == "yes" for cell in cells["readmitted"]], np.int64)
    summary = "readmission after 101766 hospital stays of diabetics"
    return Dataset("diabetes-130", summary, schema, cells, labels, homes=homes)


def air(folder: Path | None = None) -> Dataset:
    """Twelve stations in Beijing, noon of every day from March 2013 to February 2017 (Zhang et al. 2017; UCI 501,
    CC BY 4.0): is PM2.5 above 75 µg/m3 in this weather?

    folder  that holds `beijing-air-12-stations`; otherwise the environment's HUSHFED_DATA
    Hours of one day are alike, so one a day is taken; days without a value of PM2.5 are left out.
    """
    rows = [
        row
        for station in STATIONS
        for row in _rows(folder, "beijing-air-12-stations", f"PRSA_Data_{station}_20130301-20170228.csv.gz")
        if row["hour"] == NOON and row["PM2.5"] != "NA"
    ]
    cells: Cells = {name: ["" if row[name] == "NA" else row[name] for row in rows] for name in (*_WEATHER, "wd")}
    cells |= {name: [row[name] for row in rows] for name in ("month", "PM2.5", "station")}
    numbers = (
        Feature(name=name, range=(float(low), float(high)), missing="midpoint")
        for name, (low, high) in _WEATHER.items()
    )
    months = Feature(name="month", categories=tuple(str(month) for month in range(1, 13)))
    schema = Schema(
        features=(*numbers, Feature(name="wd", categories=WINDS, missing="midpoint"), months),
        label=Label(column="PM2.5", above=UNHEALTHY),
    )
    labels = np.array([float(row["PM2.5"]) > UNHEALTHY for row in rows], np.int64)
    summary = f"unhealthy air on {len(rows)} noons at twelve stations"
    return Dataset("beijing-air", summary, schema, cells, labels, "station")


# Ranges hold 99.9 % of stays or are those of the codes; they are public knowledge of hospitals, not of these patients.
_STAY: Mapping[str, tuple[int, int]] = {
    "time_in_hospital": (1, 14),  # days
    "num_lab_procedures": (0, 100),
    "num_procedures": (0, 6),
    "num_medications": (0, 60),
    "number_outpatient": (0, 10),  # visits in the year before
    "number_emergency": (0, 10),
    "number_inpatient": (0, 10),
    "number_diagnoses": (1, 16),
}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "age": DECADES,
    "admission_type_id": tuple("12345678"),
    "max_glu_serum": ("None", "Norm", ">200", ">300"),
    "A1Cresult": ("None", "Norm", ">7", ">8"),
    "metformin": ("No", "Down", "Steady", "Up"),
    "insulin": ("No", "Down", "Steady", "Up"),
    "change": ("No", "Ch"),
    "diabetesMed": ("No", "Yes"),
}
_BELONGING = {
    "specialty": "medical_specialty",
    "payer": "payer_code",
    "source": "admission_source_id",
    "patient": "patient_nbr",
}
_WEATHER: Mapping[str, tuple[int, int]] = {
    "TEMP": (-25, 45),  # °C
    "PRES": (970, 1050),  # hPa
    "DEWP": (-40, 35),  # °C
    "RAIN": (0, 30),  # mm in the hour
    "WSPM": (0, 12),  # m/s
}


def _rows(folder: Path | None, name: str, file: str) -> Sequence[Mapping[str, str]]:
    """All rows of a packed table. Errors: Refusal FILE_MISSING, DATA_INVALID."""
    path = (folder or public_folder()) / name / file
    try:
        with gzip.open(path) as packed:
            text = packed.read().decode("utf-8")
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError):
        raise Refusal(Code.DATA_INVALID, f"{path} not read", "it is damaged", "Fetch the file again") from None
    except OSError:
        raise absent(path) from None
    return list(csv.DictReader(io.StringIO(text, newline="")))
