"""The models that a run released, round by round, bound to the run by what its sites signed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from common.errors import Code, Refusal
from common.parameters import Flat
from common.work import Work
from simulations.audits.accounts import books_of, members_of
from simulations.audits.models import started
from simulations.audits.runs import HISTORY, Run


def history_of(run: Run, work: Work) -> tuple[Flat, ...] | None:
    """The model before the first round and after each, float32 [d]; None if the run kept none (a large model).

    Errors: Refusal DATA_INVALID if they are not the models that the sites' ledgers name.
    """
    path = run.folder / HISTORY
    if not path.is_file():
        return None
    try:
        arrays = load(path.read_bytes())
    except (SafetensorError, ValueError, TypeError):
        arrays = {}
    models = [arrays.get(f"{number:06d}") for number in range(len(run.rounds) + 1)]
    kept = [model for model in models if model is not None and model.shape == (work.layout.size,)]
    if len(kept) < len(models) or any(model.dtype != np.float32 for model in kept):
        raise _strange("a model is missing, or is none of this job")
    signed = _signed(run)
    for number, model in enumerate(kept):
        digest = hashlib.sha256(model.astype("<f4").tobytes()).hexdigest()
        if any(named != digest for named in signed.get(number, {}).values()):
            raise _strange(f"the sites signed another model after round {number}")
    return tuple(kept)


def _signed(run: Run) -> Mapping[int, Mapping[str, str]]:
    """Digest of the model after so many rounds, as each site's ledger names it."""
    members, _ = members_of(run)
    return started(books_of(run, members).accounts)


def _strange(why: str) -> Refusal:
    return Refusal(Code.DATA_INVALID, f"{HISTORY} not used", why, "Use the run as it was written")
