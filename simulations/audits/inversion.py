"""Can a record be rebuilt from its gradient? From the gradient itself, and from what the run's mechanism releases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from common.config import finite
from common.data import Records, Schema
from common.learning.tasks import Task
from common.privacy.mechanism import MechanismPlan
from common.privacy.noise import normals
from common.privacy.units import Unit
from common.randomness import ReplayEntropy, child, child_numpy
from common.work import Work, model_of
from simulations.audits import site_inversion
from simulations.audits.claimed import signed_claim, simulated_work
from simulations.audits.gradient_inversion import Flat64, by_division, by_optimisation
from simulations.audits.gradients import gradients
from simulations.audits.intervals import Verdict
from simulations.audits.likeness import psnr, ssim
from simulations.audits.runs import Run
from simulations.audits.site_inversion import Targets, View
from simulations.baselines import union
from simulations.rebuilt import rebuilt

RECORDS = 4
LIKE = 0.5  # SSIM from which an image counts as recognised
CLOSE = 0.05  # of the public range: a column rebuilt so closely is told
METHOD = (
    "The attacker sees the gradient of a single record at the first model: more than any run shows, where sums hold "
    "many records. Without protection it is the gradient itself; with the run's protection it is clipped, and noise "
    "as of one release of the run is added. {} FAIL: records are recognised in spite of the protection. Anything else "
    "is INCONCLUSIVE, never PASS: that this attack could not invert is no evidence of differential privacy."
)
_IMAGES = "Images are sought by cosine similarity and total variation (Geiping et al. 2020)."
_TABLES = "A linear layer gives its input away by one division (Phong et al. 2018)."


@dataclass(frozen=True)
class Shown:
    """One record and what became of it, as [inputs] or [channels, height, width]; `with_dp` if there is any.

    in_sum  what a coordinator makes of the exact sum that the record is in, where it sees one
    """

    site: str
    label: int
    original: NDArray[np.floating]
    without_dp: NDArray[np.floating]
    with_dp: NDArray[np.floating] | None
    in_sum: NDArray[np.floating] | None = None


def audit(run: Run, records: int = RECORDS) -> dict[str, Any]:
    """Every number of the inversion audit, and the records themselves, plain values ready for JSON.

    records  training records that are attacked, chosen by the job's seed; the result shows them
    Errors: Refusal DATA_INVALID for a run that was no simulation or is not as written; MODEL_INVALID for a model that
    gives no record away by these attacks; CONFIG_INVALID.
    """
    finite(records, "records", at_least=1, at_most=64)
    work = simulated_work(run)
    signed_claim(run)
    image, whole = work.job.data.image is not None, work.training.unit is Unit.SITE
    shown = _attacked(run, work, records)
    metrics = _of_images(shown) if image else _of_tables(shown)
    protected = shown[0].with_dp is not None
    found = any(metric["verdict"] == Verdict.FAIL for metric in metrics.values())
    return {
        "verdict": (Verdict.FAIL if found else Verdict.INCONCLUSIVE).value,
        "reason": _reason(found=found, protected=protected) + (site_inversion.told(work) if whole else ""),
        "kind": "image" if image else "table",
        "records": len(shown),
        "protected": protected,
        "method": (site_inversion.METHOD if whole else METHOD).format(_IMAGES if image else _TABLES),
        "metrics": metrics,
        "shown": [_plain(one, work.job.data) for one in shown],
    }


def _attacked(run: Run, work: Work, count: int) -> list[Shown]:
    """`count` training records of all sites, each attacked without and with the mechanism of the run."""
    sites, job = rebuilt(run.facts), work.job
    pool = union([site.real for site in sites])
    owners = np.concatenate([np.full(len(site.real), site.name) for site in sites])
    rows = child_numpy(job.seed, "audit", "inverted records").permutation(len(pool))[:count]
    task, model = job.training.task(job.data.classes), model_of(job)
    chosen, places = pool.take(rows), [(job.seed, "audit", "inversion", int(row)) for row in rows]
    if work.training.unit is Unit.SITE:
        views = site_inversion.views(run, work, sites, Targets(chosen, [str(owners[row]) for row in rows], places))
    else:
        views = _views(work, model, task, chosen, places)
    found = []
    for i, row in enumerate(rows):
        attack, view = Attack(model, task, chosen, places[i]), views[i]
        seen = [None if one is None else attack.on(one) for one in (view.released, view.summed)]
        original = chosen.inputs[i].numpy()
        found.append(Shown(str(owners[row]), int(chosen.labels[i]), original, attack.on(view.bare), *seen))
    return found


def _views(work: Work, model: nn.Module, task: Task, chosen: Records, places: Sequence[tuple[Any, ...]]) -> list[View]:
    """What is seen of single records' gradients: as they are, and clipped with the noise of one release."""
    bare = gradients(model, task.losses, chosen).astype(np.float64)
    if work.training.mechanism == "none":
        return [View(one, None) for one in bare]
    clipped = gradients(model, task.losses, chosen, work.training.clip).astype(np.float64)
    return [
        View(one, _released(work.training, short, place))
        for one, short, place in zip(bare, clipped, places, strict=True)
    ]


@dataclass(frozen=True)
class Attack:
    """The attack that fits the records: by optimisation for images, by division for rows of a table."""

    model: nn.Module
    task: Task
    records: Records
    place: tuple[Any, ...]

    def on(self, observed: Flat64) -> NDArray[np.floating]:
        """What it makes of an observed gradient."""
        shape = tuple(self.records.inputs.shape[1:])
        if len(shape) == 1:
            return by_division(self.model, observed).clip(-1.0, 1.0)
        return by_optimisation(self.model, self.task, observed, shape, child(*self.place))


def _released(plan: MechanismPlan, gradient: Flat64, place: tuple[Any, ...]) -> Flat64:
    """A clipped gradient with all the noise that one release is sure to have."""
    deviation = plan.sum_deviation * plan.honest**0.5
    noisy: Flat64 = gradient + deviation * normals(gradient.size, ReplayEntropy(*place))
    return noisy


def _of_images(shown: Sequence[Shown]) -> dict[str, Any]:
    """Likeness of the images; one of their kind counts as recognised from `LIKE` on."""
    metrics = {}
    for name, of in (("psnr", psnr), ("ssim", ssim)):
        metrics[f"{name}_without_dp"] = _shared([of(one.original, one.without_dp) for one in shown])
        if protected := [of(one.original, one.with_dp) for one in shown if one.with_dp is not None]:
            metrics[f"{name}_with_dp"] = _shared(protected)
        if summed := [of(one.original, one.in_sum) for one in shown if one.in_sum is not None]:
            metrics[f"{name}_in_sum"] = _shared(summed)
    if one := metrics.get("ssim_with_dp"):
        one |= {"tolerance": LIKE, "verdict": (Verdict.FAIL if one["value"] > LIKE else Verdict.INCONCLUSIVE).value}
    return metrics


def _of_tables(shown: Sequence[Shown]) -> dict[str, Any]:
    """Mean distance of columns from their true values, as a share of the public range; inputs span [-1, 1]."""
    metrics = {"error_without_dp": _shared([_error(one.original, one.without_dp) for one in shown])}
    if protected := [_error(one.original, one.with_dp) for one in shown if one.with_dp is not None]:
        metrics["error_with_dp"] = one = _shared(protected)
        one |= {"tolerance": CLOSE, "verdict": (Verdict.FAIL if one["value"] < CLOSE else Verdict.INCONCLUSIVE).value}
    if summed := [_error(one.original, one.in_sum) for one in shown if one.in_sum is not None]:
        metrics["error_in_sum"] = _shared(summed)
    return metrics


def _error(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    return float(np.abs(first.astype(np.float64) - second).mean() / 2)


def _shared(values: Sequence[float]) -> dict[str, Any]:
    """Mean of all attacked records, with the least and the most of them."""
    return {
        "value": float(np.mean(values)), "low": min(values), "high": max(values), "tolerance": None,
        "verdict": Verdict.INCONCLUSIVE.value, "reason": f"mean of {len(values)} records, least and most of them",
    }  # fmt: skip


def _reason(*, found: bool, protected: bool) -> str:
    if found:
        return "records are recognised through the run's own protection"
    if not protected:
        return "the run adds no noise: what hides a record is the sum it is in, and nothing else"
    return (
        "this attack could not invert what the run's mechanism releases, which is no evidence of differential privacy"
    )


def _plain(one: Shown, schema: Schema) -> dict[str, Any]:
    """The record as JSON: pixels of an image, or columns of a table in their own units."""
    parts = {"original": one.original, "without_dp": one.without_dp, "with_dp": one.with_dp}
    parts |= {} if one.in_sum is None else {"in_sum": one.in_sum}
    if schema.image is not None:
        values = {name: _listed(array) for name, array in parts.items()}
        return {"site": one.site, "label": schema.label.names[one.label], "shape": list(schema.image.shape), **values}
    columns = {name: None if array is None else _columns(array, schema) for name, array in parts.items()}
    return {"site": one.site, "label": schema.label.names[one.label], **columns}


def _listed(array: NDArray[np.floating] | None) -> list[float] | None:
    return None if array is None else [round(float(value), 4) for value in array.reshape(-1)]


def _columns(array: NDArray[np.floating], schema: Schema) -> dict[str, float | str]:
    """Inputs back in the units of their columns; of categories the one with the largest input."""
    found: dict[str, float | str] = {}
    start = 0
    for feature in schema.features:
        part = array[start : start + feature.width]
        start += feature.width
        if feature.range is None:
            found[feature.name] = feature.categories[int(np.argmax(part))]
        else:
            low, high = feature.range
            found[feature.name] = round(low + (float(part[0]) + 1) / 2 * (high - low), 3)
    return found
