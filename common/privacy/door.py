"""Plan a privacy budget: how much epsilon a noise costs, and how much noise an epsilon needs."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from common import console
from common.errors import Code, Refusal
from common.privacy.accounting import GROUP, ONLINE, REPORT, accountant, person_epsilon, sigma_for
from common.privacy.claims import sampled_claim
from common.privacy.units import Relation, Unit

app = typer.Typer(help="Epsilon of Poisson-sampled Gaussian sums (DP-SGD), and the noise that an epsilon needs.")

Q = Annotated[float, typer.Option("--q", help="Chance of each record to be in a step, above 0 and at most 1.")]
Sigma = Annotated[float, typer.Option("--sigma", help="Noise multiplier: standard deviation over clipping bound.")]
Steps = Annotated[int, typer.Option("--steps", help="Number of steps (releases).")]
Delta = Annotated[float, typer.Option("--delta", help="Chance that epsilon does not hold; far below 1 / records.")]
Records = Annotated[int, typer.Option("--records", help="Most records of one person; above 1 a person is the unit.")]
Epsilon = Annotated[float, typer.Option("--epsilon", help="The most that all steps together may cost.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object as the last line.")]


@app.command("epsilon")
@console.guarded
def plan_epsilon(q: Q, sigma: Sigma, steps: Steps, delta: Delta, *, records: Records = 1, json: Json = False) -> None:
    """What so much noise costs: epsilon of one record, or of a person with several, add or remove one."""
    found = person_epsilon(
        q=q, sigma=sigma, steps=steps, delta=delta, records=records, interval=REPORT if records == 1 else GROUP
    )
    if not math.isfinite(found):
        raise Refusal(
            Code.CONFIG_INVALID,
            f"delta = {delta:g}",
            "no epsilon is known to hold at so small a chance",
            "Choose a delta of 1e-12 or more",
        )
    console.emit({"epsilon": found, "sigma": sigma, **_meaning(found, q, steps, delta, records)}, json=json)


@app.command("sigma")
@console.guarded
def plan_sigma(epsilon: Epsilon, q: Q, steps: Steps, delta: Delta, *, records: Records = 1, json: Json = False) -> None:
    """The least noise multiplier that keeps all steps within epsilon, rounded up to 4 decimals."""
    found = sigma_for(epsilon=epsilon, q=q, steps=steps, delta=delta, records=records, interval=ONLINE)
    console.emit({"sigma": found, "epsilon": epsilon, **_meaning(epsilon, q, steps, delta, records)}, json=json)


def _meaning(found: float, q: float, steps: int, delta: float, records: int) -> dict[str, str | int]:
    return {
        "unit": (Unit.PERSON if records > 1 else Unit.RECORD).value,
        "records": records,
        "relation": Relation.ADD_OR_REMOVE_ONE.value,
        "accountant": accountant(),
        "claim": sampled_claim(found, q, steps, delta, records),
    }
