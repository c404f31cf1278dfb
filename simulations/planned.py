"""What a run without masks and ledgers says of privacy: what a deployment of its job would charge, and no more."""

from __future__ import annotations

import math
from typing import Any

from common.privacy.claims import promise
from common.work import Work, whole_run

ANY_DELTA = 1e-5  # where the job has none, nothing is claimed anyway
NOT_A_TEST = (
    "Nothing was charged and nothing was masked here: what is simulated on the sum is no test of secure aggregation, "
    "and there is nothing that an audit could verify."
)


def planned(work: Work) -> dict[str, Any]:
    """The entry `planned` of run.json; it follows from the job, the number of sites and `sizes` alone.

    epsilon     of a site that takes part in every round without failed attempts; None if nothing could be claimed
    sizes       nominal `records` of all sites together and of the `largest`; `reports` of one sum at most
    sentence    the figure in words      conditions  against whom it would hold, and what is said beside it
    """
    privacy = work.job.privacy
    claim = promise("", whole_run(work), privacy.delta or ANY_DELTA)
    side = claim.whole or claim.records
    void = bool(claim.void) or not math.isfinite(side.epsilon)
    sentence, *conditions = claim.planned()
    return {
        "epsilon": None if void else side.epsilon,
        "delta": privacy.delta,
        "unit": None if privacy.mode == "none" else side.unit.value,
        "mode": privacy.mode,
        "sizes": {
            "records": work.roster.all_records,
            "largest": work.roster.most_records,
            "reports": work.sum_max,
        },
        "sentence": f"{sentence} {NOT_A_TEST}",
        "conditions": conditions,
    }
