"""What a run claims for its training records, as the empirical audits hold it against what an attack shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import Code, Refusal
from common.privacy.units import Unit
from common.secagg.manifest import manifest_from
from common.work import Work, work_of
from simulations.audits import privacy
from simulations.audits.intervals import Verdict
from simulations.audits.runs import Run
from simulations.rebuilt import scenario_of


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The largest epsilon that the ledgers hold in this run, and its delta.

    Of a training record of any site; in modes that protect whole sites, of any site.
    epsilon   None if nothing is claimed: no noise, noise from a seed, or a privacy audit that found something
    problems  what that audit found
    """

    epsilon: float | None
    delta: float
    problems: tuple[str, ...]

    @property
    def missing(self) -> str:
        """Why nothing is claimed, in words; empty if something is."""
        if self.epsilon is not None:
            return ""
        found = ", ".join(self.problems)
        return f"nothing is claimed: the privacy audit found {found}" if found else "the run claims no privacy"


ANY_DELTA = 1e-5  # where nothing is claimed: the attacks are measured all the same


def claim_of(run: Run) -> Claim:
    """The claim of a run, recomputed from its ledgers."""
    found = privacy.audit(run)
    unit = "site" if found["unit"] == Unit.SITE else "train"
    costs = [site["this_run"].get(unit) for site in found["sites"]]
    known = max((cost for cost in costs if cost is not None), default=None)
    return Claim(
        epsilon=None if found["epsilon"] is None else known,
        delta=found["delta"] or ANY_DELTA,
        problems=tuple(found["problems"]),
    )


def simulated_work(run: Run) -> Work:
    """The work of a simulated run.

    Errors: Refusal DATA_INVALID for a run that was no simulation, or that formed sums without masks; as `work_of`.
    """
    if run.exact:
        why = "its sums were formed in the open, and its sites have no files and no ledgers"
        do = 'Attack a run with world.sums = "masked"'
        raise Refusal(Code.DATA_INVALID, f"{run.folder} not attacked", why, do)
    return work_of(scenario_of(run.facts).job, manifest_from(run.facts["manifest"]))


def signed_claim(run: Run) -> Claim:
    """The claim of a run whose record is the one that was signed: an attack on another would say nothing of it.

    Errors: Refusal DATA_INVALID.
    """
    claim = claim_of(run)
    changed = {"RECORD_UNSIGNED", "RECORD_MISMATCH", "ROUNDS_MISMATCH", "MODEL_MISMATCH", "MODEL_MISSING"}
    if found := sorted(changed & set(claim.problems)):
        raise Refusal(
            Code.DATA_INVALID,
            f"{run.folder} not attacked",
            f"the privacy audit found {', '.join(found)}",
            "See `hushfed audit privacy`, and use the run as it was written",
        )
    return claim


def worst(metrics: Mapping[str, Mapping[str, Any]], *needed: str) -> Verdict:
    """The worst verdict of the metrics that have a tolerance, and of the `needed` ones whether they have or not."""
    given = {Verdict(one["verdict"]) for name, one in metrics.items() if one["tolerance"] is not None or name in needed}
    order = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)
    return next((verdict for verdict in order if verdict in given), Verdict.INCONCLUSIVE)
