"""Whether a run's model is the one that sites counted on, and whether they all started each round from the same one."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from common.errors import Code, Refusal
from common.parameters import Flat, Layout
from common.work import Work
from simulations.audits.accounts import Account
from simulations.audits.problems import Finding, Problem
from simulations.audits.runs import Run


def unlike_the_ledgers(run: Run, work: Work | None, accounts: Iterable[Account]) -> Iterator[Finding]:
    """The model against the digests of parameters in the sites' ledgers.

    Each charge names the parameters that its order started from. Those of round k + 1, and those whose held-out
    counts were taken after round k, are the model after round k. So the released model is bound to the ledgers if any
    site was charged for counts after the last round; a run whose counts failed has only the coordinator's word.
    """
    if run.model is None:
        yield Finding(Problem.MODEL_MISSING, "", "model.safetensors is not there")
    after_rounds = started(accounts)
    apart = sorted(after for after, models in after_rounds.items() if len(set(models.values())) > 1)
    if apart:
        detail = f"sites started from different parameters after round {apart[0]}, of {len(apart)} such rounds"
        yield Finding(Problem.MODEL_INCONSISTENT, "", detail)
    if run.model is None or work is None:
        return
    digest = _digest(run.model, work.layout)
    if digest is None:
        yield Finding(Problem.MODEL_MISMATCH, "", "model.safetensors is no model of the job")
        return
    for site, models in sorted(after_rounds.get(len(run.rounds), {}).items()):
        if models != digest:
            yield Finding(Problem.MODEL_MISMATCH, site, "its ledger names other parameters after the last round")


def started(accounts: Iterable[Account]) -> dict[int, dict[str, str]]:
    """By number of rounds before: which parameters each site started from, as its ledger says, all attempts joined."""
    found: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for account in accounts:
        for entry in account.mine:
            if entry.facts is not None:
                after = entry.facts.round - (entry.partition == "train")
                found[after][account.site].add(entry.facts.model)
    return {after: {site: " ".join(sorted(seen)) for site, seen in sites.items()} for after, sites in found.items()}


def flat_of(model: bytes, layout: Layout) -> Flat:
    """The parameters in the bytes of a model file. Errors: Refusal DATA_INVALID if it is no model of the layout."""
    flat = _flat(model, layout)
    if flat is None:
        raise Refusal(
            Code.DATA_INVALID,
            "model.safetensors not read",
            "it is no model of the job",
            "Use the run as it was written",
        )
    return flat


def _digest(model: bytes, layout: Layout) -> str | None:
    """SHA-256 of the parameters as an order carries them; None for a file that does not hold exactly this layout."""
    flat = _flat(model, layout)
    return None if flat is None else hashlib.sha256(flat.astype("<f4").tobytes()).hexdigest()


def _flat(model: bytes, layout: Layout) -> Flat | None:
    """The parameters of a model file in their order; None if it does not hold exactly this layout."""
    try:
        arrays = load(model)
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None
    shapes = dict(zip(layout.names, layout.shapes, strict=True))
    if {name: array.shape for name, array in arrays.items()} != shapes:
        return None
    if any(array.dtype != np.float32 for array in arrays.values()):
        return None
    flat: Flat = np.concatenate([arrays[name].reshape(-1) for name in layout.names])
    return flat
