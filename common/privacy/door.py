"""Plan a privacy budget: how much epsilon a noise costs, and how much noise an epsilon needs."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from common import console
from common.errors import Code, Refusal
from common.privacy.accounting import ONLINE, REPORT, accountant, epsilon, sigma_for
from common.privacy.claims import sampled_claim
from common.privacy.units import Relation, Unit

app = typer.Typer(help="Epsilon of Poisson-sampled Gaussian sums (DP-SGD), and the noise that an epsilon needs.")

Q = Annotated[float, typer.Option("--q", help="Chance of each record to be in a step, above 0 and at most 1.")]
Sigma = Annotated[float, typer.Option("--sigma", help="Noise multiplier: standard deviation over clipping bound.")]
Steps = Annotated[int, typer.Option("--steps", help="Number of steps (releases).")]
Delta = Annotated[float, typer.Option("--delta", help="Chance that epsilon does not hold; far below 1 / records.")]
Epsilon = Annotated[float, typer.Option("--epsilon", help="The most that all steps together may cost.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object as the last line.")]


@app.command("epsilon")
@console.guarded
def plan_epsilon(q: Q, sigma: Sigma, steps: Steps, delta: Delta, json: Json = False) -> None:
    """What so much noise costs: epsilon of one record, add or remove one."""
    found = epsilon(q=q, sigma=sigma, steps=steps, delta=delta, interval=REPORT)
    if not math.isfinite(found):
        raise Refusal(
            Code.CONFIG_INVALID,
            f"delta = {delta:g}",
            "no epsilon is known to hold at so small a chance",
            "Choose a delta of 1e-12 or more",
        )
    console.emit({"epsilon": found, "sigma": sigma, **_meaning(found, q, steps, delta)}, json=json)


@app.command("sigma")
@console.guarded
def plan_sigma(epsilon: Epsilon, q: Q, steps: Steps, delta: Delta, json: Json = False) -> None:
    """The least noise multiplier that keeps all steps within epsilon, rounded up to 4 decimals."""
    found = sigma_for(epsilon=epsilon, q=q, steps=steps, delta=delta, interval=ONLINE)
    console.emit({"sigma": found, "epsilon": epsilon, **_meaning(epsilon, q, steps, delta)}, json=json)


def _meaning(found: float, q: float, steps: int, delta: float) -> dict[str, str]:
    return {
        "unit": Unit.RECORD.value,
        "relation": Relation.ADD_OR_REMOVE_ONE.value,
        "accountant": accountant(),
        "claim": sampled_claim(found, q, steps, delta),
    }
