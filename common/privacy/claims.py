"""What may be said about privacy: sentences in which an epsilon never stands alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal

from common.privacy.accounting import REPORT, accountant
from common.privacy.chain import charged
from common.privacy.entries import Entry
from common.privacy.mechanism import MechanismPlan
from common.privacy.spending import Spending, spending
from common.privacy.units import Adversary, Relation, Unit

NOT_COVERED = (
    "that the site took part, when and how long; the number of its records; choices made by looking at results"
)
_OUTSIDE = "everyone outside the site: the server, the other sites and every user of the model"
_WEAKEST_FIRST = (Adversary.MODEL_USERS, Adversary.SERVER_AND_COLLUDERS)
LEAST_DECIMAL = 0.1  # epsilon from which 3 decimals say enough
_RELATIONS = {Relation.ADD_OR_REMOVE_ONE: "add or remove one"}


@dataclass(frozen=True, kw_only=True)
class Side:
    """What is said of one unit: its epsilon, over how many releases, and against whom the weakest of them holds.

    honest      fewest sites whose noise was counted on, over all sums (1: the site's own noise is enough)
    separation  fewest rounds between two turns of a site that correlated noise counts on (0: none is correlated)
    """

    unit: Unit
    epsilon: float
    releases: int
    adversary: Adversary
    honest: int
    separation: int = 0

    def against(self) -> str:
        """Who learns no more than epsilon, and while what is true."""
        if self.adversary is Adversary.MODEL_USERS:
            turns = f" and that no site has two turns within {self.separation} rounds" if self.separation else ""
            return (
                f"every user of the models, who trust the coordinator with noise of the planned size{turns}; nothing "
                "is claimed against the coordinator, which sees each sum of updates without noise"
            )
        if self.adversary is Adversary.SERVER_AND_COLLUDERS:
            return (
                "the server, every user of the model and colluding sites, while the noise of at least "
                f"{self.honest} honest {'site' if self.honest == 1 else 'sites'} is in every sum "
                "and no more unmasking sites collude than its manifest allows for (corrupt_max)"
            )
        return _OUTSIDE


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Everything that an epsilon means, for one data set of one site. `sentences` is the only way to print it.

    records  single records, over all releases of both kinds        train, holdout  epsilon of each kind
    counts   of them the held-out ones alone; None without any
    whole    all training records of the site together; None where some release does not bound them
    layered  whether single records have noise of their own beside the site's
    void     why nothing may be claimed
    """

    site: str
    delta: float
    records: Side
    train: float
    holdout: float
    counts: Side | None
    whole: Side | None
    layered: bool
    samplers: tuple[str, ...]
    void: tuple[str, ...]
    relation: Relation = Relation.ADD_OR_REMOVE_ONE
    accountant: str = ""

    def sentences(self) -> tuple[str, ...]:
        """The claim in words, each sentence true by itself."""
        if not self.records.releases:
            return (f"Site {self.site}: nothing was released.",)
        if self.void or not math.isfinite(self.records.epsilon):
            why = "; ".join(self.void) or "its epsilon has no bound"
            return (
                f"Site {self.site}: no differential privacy is claimed, because {why}.",
                "Any epsilon of these releases would be void.",
            )
        return (
            *(self._of_records() if self.whole is None else self._of_the_site(self.whole)),
            *self._always(),
        )

    def planned(self) -> tuple[str, ...]:
        """The claim looking ahead, in words; of nothing that was charged."""
        side = self.whole or self.records
        if self.void or not math.isfinite(side.epsilon):
            why = "; ".join(self.void) or "its epsilon has no bound"
            return (f"Planned: a deployment of this job would claim no differential privacy, because {why}.",)
        beside = () if self.whole is None else self._beside_the_site()
        whom = "a site that takes part in every round, without failed attempts"
        return (
            f"Planned: a deployment of this job would charge {whom}, {self._says(side)}.",
            f"It would hold against {side.against()}.",
            *beside,
            *self._always(),
        )

    def _always(self) -> tuple[str, ...]:
        """What every figure rests on, and what none covers."""
        return (
            f"Sampling: {', '.join(self.samplers)}. Accountant: {self.accountant}. Noise: system entropy.",
            "A person with several records, or with records at several sites, has a larger epsilon.",
            f"Not covered: {NOT_COVERED}.",
        )

    def _of_records(self) -> tuple[str, ...]:
        over = f"over all {self.records.releases} releases that its ledger holds, in all runs"
        parts = f"Training records: epsilon {_shown(self.train)}; held-out records: epsilon {_shown(self.holdout)}"
        return (
            f"Site {self.site}: {self._says(self.records)}, {over}.",
            f"It holds against {self.records.against()}.",
            f"{parts}; a record is one or the other, by a keyed hash of itself, so the larger of the two counts.",
        )

    def _of_the_site(self, whole: Side) -> tuple[str, ...]:
        over = f"over all {whole.releases} training releases that its ledger holds, in all runs"
        return (
            f"Site {self.site}: {self._says(whole)}, all its training records together, {over}.",
            f"It holds against {whole.against()}.",
            *self._beside_the_site(),
        )

    def _beside_the_site(self) -> tuple[str, ...]:
        """What is said of single records where the unit is the site."""
        one = "One training record is protected at least as well, against the same."
        if self.layered:
            own = _guarantee(self.train, self.delta, Unit.RECORD, self.relation)
            one = f"Training records: {own} besides, against {_OUTSIDE}; figures of different units are never added."
        if self.counts is None:
            return (one,)
        counts = (
            f"Held-out records: {self._says(self.counts)} in released counts (times released: {self.counts.releases})"
        )
        return one, f"{counts}, against {self.counts.against()}; no count is bounded for the whole site."

    def _says(self, side: Side) -> str:
        return _guarantee(side.epsilon, self.delta, side.unit, self.relation)


def claim_of(site: str, entries: Sequence[Entry], delta: float, interval: float = REPORT) -> Claim:
    """The claim over everything that a ledger holds, recomputed from its plans alone."""
    made = [(entry.plan, 1) for entry in entries if entry.plan is not None]
    return _claim(site, made, spending(charged(entries), delta, interval))


def promise(site: str, plans: Sequence[tuple[MechanismPlan, int]], delta: float) -> Claim:
    """The claim that these plans will allow once so many steps of each have run; for looking ahead."""
    made = [(plan, math.ceil(steps / plan.steps)) for plan, steps in plans if steps]
    return _claim(site, made, spending(plans, delta))


def sampled_claim(epsilon: float, q: float, steps: int, delta: float, records: int = 1) -> str:
    """What `steps` Gaussian sums cost, as one sentence; for plans that no site has run.

    records  most of one person, who is the unit where it is more than one
    """
    guarantee = _guarantee(epsilon, delta, Unit.RECORD if records == 1 else Unit.PERSON, Relation.ADD_OR_REMOVE_ONE)
    guarantee += f", with at most {records} records" if records > 1 else ""
    return (
        f"{guarantee}, over {steps} steps of clipped sums with Gaussian noise, if every step takes each record with "
        f"chance {q:g} independently (Poisson) and nothing else leaves the site; accountant: {accountant()}; "
        f"not covered: {NOT_COVERED}."
    )


def _claim(site: str, made: Sequence[tuple[MechanismPlan, int]], spent: Spending) -> Claim:
    """made: plans and how many releases were made by each."""
    outer = [(plan, count) for plan, count in made if plan.unit is Unit.SITE or not plan.layered]
    train = [(plan, count) for plan, count in outer if plan.partition == "train"]
    holdout = [(plan, count) for plan, count in outer if plan.partition == "holdout"]
    return Claim(
        site=site,
        delta=spent.delta,
        records=_side(Unit.RECORD, spent.epsilon, outer),
        train=spent.nominal["train"],
        holdout=spent.nominal["holdout"],
        counts=_side(Unit.RECORD, spent.nominal["holdout"], holdout) if holdout else None,
        whole=None if spent.site is None else _side(Unit.SITE, spent.site, train),
        layered=any(plan.layered for plan, _ in made),
        samplers=tuple(sorted({_sampler(plan) for plan, _ in made})),
        void=spent.void,
        accountant=_accountant(spent),
    )


def _accountant(spent: Spending) -> str:
    orders = ", ".join(f"order {order} for {what}" for what, order in sorted(spent.orders.items()))
    later = "jobs planned after others had released something are added up by a Rényi filter"
    told = f"{accountant()}; {later}, {orders}" if orders else accountant()
    return f"{told}; for {', '.join(spent.rings)} Rényi divergences at whole orders, if less" if spent.rings else told


def _side(unit: Unit, epsilon: float, made: Sequence[tuple[MechanismPlan, int]]) -> Side:
    """One unit's guarantee: as strong as the weakest release."""
    known = {plan.adversary for plan, _ in made}
    weakest = next((one for one in _WEAKEST_FIRST if one in known), Adversary.OUTSIDE_THE_SITE)
    return Side(
        unit=unit,
        epsilon=epsilon,
        releases=sum(count for _, count in made),
        adversary=weakest,
        honest=min((p.honest for p, _ in made if p.adversary is Adversary.SERVER_AND_COLLUDERS), default=1),
        separation=max((plan.separation for plan, _ in made), default=0),
    )


def _sampler(plan: MechanismPlan) -> str:
    what = "counts of held-out records" if plan.purpose == "counts" else "training"
    return f"{what} Poisson at rate {plan.sampling_rate:g}" if plan.sampler == "poisson" else f"{what} without sampling"


def _guarantee(epsilon: float, delta: float, unit: Unit, relation: Relation) -> str:
    return f"({_shown(epsilon)}, {delta:g})-differential privacy for one {unit} ({_RELATIONS[relation]})"


def _shown(epsilon: float) -> str:
    """Rounded up, to 3 decimals, of a small one to 3 digits: a claim is hardly above what was computed, never below."""
    if epsilon >= LEAST_DECIMAL:
        return f"{math.ceil(epsilon * 1000 - 1e-9) / 1000:.3f}".rstrip("0").rstrip(".")
    exact = Decimal(f"{epsilon:.10g}")  # float noise apart
    return f"{float(Context(prec=3, rounding=ROUND_CEILING).create_decimal(exact)):g}"
