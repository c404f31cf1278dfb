"""What the page says where sums were formed without masks: planned figures, and that nothing stands behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from simulations.report.numbers import epsilon, small

OPENING = "all of it simulated in one process, which formed the sums in the open"
GUARANTEE = (
    "This run was simulated on the sum: no site had a key, a mask or a ledger, so there is nothing to recompute a "
    "guarantee from. What follows is computed from the job, for sites that would be charged."
)
PRESENT = "A site counts as present in a round when its report went into the sum."
LIMIT = (
    "Sums were formed in the open. Noise, clips, weights and cohorts are those of a deployment; masks, sites that "
    "are lost between two steps of the protocol, policies, ledgers and what all that costs in time are not in this "
    "run, which is no test of them. "
    "Its record is signed with a key that was made for it: that shows that the record is whole, and not whose it is."
)

ONE_POOL = (
    "The sites were drawn from one pool of records, so the same record lies at many of them. The planned figure is for "
    "one record at one site: in a population of people such copies would add up."
)


def privacy(planned: Mapping[str, Any] | None) -> Markup:
    """Beside the verdict. planned: None where the record does not hold."""
    if planned is None:
        return Markup.escape("The record of this simulation does not hold, so no figure is taken from it; see below.")
    nothing = "Nothing was charged and nothing masked, so there is nothing to audit."
    if planned["epsilon"] is None:
        return Markup.escape(f"{nothing} A deployment of this job would claim no privacy.")
    text = Markup("{} A deployment of this job would charge a site that takes part in every round ε\u00a0=\u00a0{}.")
    return text.format(nothing, epsilon(planned["epsilon"]))


def epsilon_of(planned: Mapping[str, Any]) -> Markup:
    """Below the large figure, which states none."""
    if planned["epsilon"] is None:
        return Markup.escape("ε, no privacy planned")
    whose = "one whole site" if planned["unit"] == "site" else "one record of a site"
    text = Markup("ε: none was spent; planned for a deployment {}, for {}, add or remove one, δ\u00a0=\u00a0{}")
    return text.format(epsilon(planned["epsilon"]), whose, small(planned["delta"]))


def from_one_pool(facts: Mapping[str, Any]) -> bool:
    """Whether several sites hold the same records."""
    settings = (facts.get("world") or {}).get("settings") or {}
    dealt = settings.get("partition")
    return isinstance(dealt, Mapping) and dealt.get("kind") == "resampled"


def engine_of(facts: Mapping[str, Any]) -> str | None:
    """What computed the sites of a simulation; None where they are processes of their own, or nobody says."""
    world = facts.get("world") or {}
    engine, kernel = world.get("engine"), world.get("kernel")
    return engine if kernel in (None, engine) else f"{engine}, kernel {kernel}"
