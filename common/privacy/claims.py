"""What may be said about privacy: sentences in which an epsilon never stands alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from common.privacy.accounting import REPORT, accountant
from common.privacy.entries import Entry, charged
from common.privacy.mechanism import MechanismPlan
from common.privacy.spending import Spending, spending
from common.privacy.units import Adversary, Relation, Unit

NOT_COVERED = (
    "that the site took part, when and how long; the number of its records; choices made by looking at results"
)
_OUTSIDE = "everyone outside the site: the server, the other sites and every user of the model"
_RELATIONS = {Relation.ADD_OR_REMOVE_ONE: "add or remove one"}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Everything that an epsilon means, for one data set of one site. `sentences` is the only way to print it.

    epsilon     of one record, over all releases that the ledger holds; `math.inf` says that nothing is claimed
    nominal     by partition, as if the claim were not void
    honest      fewest sites whose noise was counted on, over all sums (1: the site's own noise is enough)
    void        why nothing may be claimed
    """

    site: str
    epsilon: float
    delta: float
    train: float
    holdout: float
    releases: int
    honest: int
    adversary: Adversary
    samplers: tuple[str, ...]
    void: tuple[str, ...]
    unit: Unit = Unit.RECORD
    relation: Relation = Relation.ADD_OR_REMOVE_ONE
    accountant: str = ""

    def sentences(self) -> tuple[str, ...]:
        """The claim in words, each sentence true by itself."""
        if not self.releases:
            return (f"Site {self.site}: nothing was released.",)
        if self.void or not math.isfinite(self.epsilon):
            why = "; ".join(self.void) or "its epsilon has no bound"
            return (
                f"Site {self.site}: no differential privacy is claimed, because {why}.",
                "Any epsilon of these releases would be void.",
            )
        guarantee = _guarantee(self.epsilon, self.delta, self.unit, self.relation)
        parts = f"Training records: epsilon {_shown(self.train)}; held-out records: epsilon {_shown(self.holdout)}"
        return (
            f"Site {self.site}: {guarantee}, over all {self.releases} releases that its ledger holds, in all runs.",
            f"It holds against {self._against()}.",
            f"{parts}; a record is one or the other, by a keyed hash of itself, so the larger of the two counts.",
            f"Sampling: {', '.join(self.samplers)}. Accountant: {self.accountant}. Noise: system entropy.",
            "A person with several records, or with records at several sites, has a larger epsilon.",
            f"Not covered: {NOT_COVERED}.",
        )

    def _against(self) -> str:
        if self.adversary is Adversary.SERVER_AND_COLLUDERS:
            return (
                "the server, every user of the model and colluding sites, while the noise of at least "
                f"{self.honest} honest {'site' if self.honest == 1 else 'sites'} is in every sum "
                "and no more of the sites that unmask side with the server than the manifest allows for"
            )
        return _OUTSIDE


def claim_of(site: str, entries: Sequence[Entry], delta: float, interval: float = REPORT) -> Claim:
    """The claim over everything that a ledger holds, recomputed from its plans alone."""
    plans = [plan for plan, steps in charged(entries) if steps]
    return _claim(site, plans, spending(charged(entries), delta, interval), _releases(entries))


def promise(site: str, plans: Sequence[tuple[MechanismPlan, int]], delta: float) -> Claim:
    """The claim that these plans will allow once so many steps of each have run; for looking ahead."""
    releases = sum(math.ceil(steps / plan.steps) for plan, steps in plans)
    return _claim(site, [plan for plan, steps in plans if steps], spending(plans, delta), releases)


def sampled_claim(epsilon: float, q: float, steps: int, delta: float) -> str:
    """What `steps` Gaussian sums cost, as one sentence; for plans that no site has run."""
    guarantee = _guarantee(epsilon, delta, Unit.RECORD, Relation.ADD_OR_REMOVE_ONE)
    return (
        f"{guarantee}, over {steps} steps of clipped sums with Gaussian noise, if every step takes each record with "
        f"chance {q:g} independently (Poisson) and nothing else leaves the site; accountant: {accountant()}; "
        f"not covered: {NOT_COVERED}."
    )


def _claim(site: str, plans: Sequence[MechanismPlan], spent: Spending, releases: int) -> Claim:
    shared = [plan for plan in plans if plan.adversary is Adversary.SERVER_AND_COLLUDERS]
    return Claim(
        site=site,
        epsilon=spent.epsilon,
        delta=spent.delta,
        train=spent.nominal["train"],
        holdout=spent.nominal["holdout"],
        releases=releases,
        honest=min((plan.honest for plan in shared), default=1),
        adversary=Adversary.SERVER_AND_COLLUDERS if shared else Adversary.OUTSIDE_THE_SITE,
        samplers=tuple(sorted({_sampler(plan) for plan in plans})),
        void=spent.void,
        accountant=accountant(),
    )


def _releases(entries: Sequence[Entry]) -> int:
    return sum(entry.plan is not None for entry in entries)


def _sampler(plan: MechanismPlan) -> str:
    what = "counts of held-out records" if plan.purpose == "counts" else "training"
    return f"{what} Poisson at rate {plan.sampling_rate:g}" if plan.sampler == "poisson" else f"{what} without sampling"


def _guarantee(epsilon: float, delta: float, unit: Unit, relation: Relation) -> str:
    return f"({_shown(epsilon)}, {delta:g})-differential privacy for one {unit} ({_RELATIONS[relation]})"


def _shown(epsilon: float) -> str:
    """Rounded up: a claim is never below what was computed."""
    return f"{math.ceil(epsilon * 1000 - 1e-9) / 1000:g}"
