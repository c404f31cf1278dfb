"""What a privacy audit can find, by stable names."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Problem(StrEnum):
    """Stable names of what an audit can find. Names are never removed and never change their meaning."""

    # Whom to believe
    MANIFEST_INVALID = "MANIFEST_INVALID"  # the manifest does not name every site once, with a key
    MANIFEST_MISMATCH = "MANIFEST_MISMATCH"  # the run's manifest is not the one that governance signed
    RECORD_UNSIGNED = "RECORD_UNSIGNED"  # the manifest's coordinator signed no statement about the record
    RECORD_MISMATCH = "RECORD_MISMATCH"  # the record is not the one that the coordinator signed
    # Ledgers
    LEDGER_MISSING = "LEDGER_MISSING"  # a site took part and its ledger is not there
    CHAIN_BROKEN = "CHAIN_BROKEN"  # a line was changed, removed, added or moved, or names a plan it does not hold
    SIGNATURE_INVALID = "SIGNATURE_INVALID"  # a line was not signed by the site's key of the manifest
    SITE_MISMATCH = "SITE_MISMATCH"  # the ledger is of another site
    HEAD_MISMATCH = "HEAD_MISMATCH"  # the last line is not the one acknowledged, or a head noted elsewhere is not there
    ENTRY_MISSING = "ENTRY_MISSING"  # something left a site that its ledger does not hold
    # Rounds and model
    ROUNDS_MISMATCH = "ROUNDS_MISMATCH"  # the rounds are not 1 to the job's last once each, or not those signed for
    MODEL_MISSING = "MODEL_MISSING"  # the run's model is not there
    MODEL_MISMATCH = "MODEL_MISMATCH"  # the model is not the one that was signed for
    MODEL_INCONSISTENT = "MODEL_INCONSISTENT"  # sites of one round started from different parameters
    # Figures
    EPSILON_UNDERSTATED = "EPSILON_UNDERSTATED"  # the run reported less than its plans cost
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"  # the run cost more than its plans promised
    JOB_MISMATCH = "JOB_MISMATCH"  # the job is not the one whose plans the sites signed
    PLAN_MISMATCH = "PLAN_MISMATCH"  # sites of one run charged different plans, or not the mode of the job
    PLAN_INVALID = "PLAN_INVALID"  # a plan that a site signed has no cost that could be computed
    NOISE_TOO_SMALL = "NOISE_TOO_SMALL"  # a sum had fewer sites than its noise was shared among
    NOISE_REPLAY = "NOISE_REPLAY"  # noise came from a seed: whoever knows it can take it away


@dataclass(frozen=True)
class Finding:
    """One thing that does not hold, where, and how it shows. site: empty if it concerns the whole run."""

    code: Problem
    site: str
    detail: str
