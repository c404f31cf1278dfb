"""Power of the canary game: mean bounds, how often a fifth of the noise is caught, how often a whole one is accused."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from common.randomness import SystemEntropy
from simulations.audits.games import Bound, Coins, Scores, bound, play
from simulations.audits.lower_bounds import gaussian_epsilon

CANARIES, DELTA, TRIALS = 2000, 1e-5, 200


def games(sigma: float, trials: int) -> list[Bound]:
    """Games with a Gaussian sum in which every canary has a coordinate of its own."""
    stream = np.random.default_rng()

    def release(members: Coins) -> Scores:
        return members + sigma * stream.normal(size=members.size)

    return [bound(play(release, CANARIES, SystemEntropy()), DELTA) for _ in range(trials)]


def row(*cells: str) -> None:
    """Write one line of the table."""
    sys.stdout.write("".join(f"{cell:>12}" for cell in cells) + "\n")


def main(trials: int = TRIALS) -> None:
    """Print one row for each noise multiplier."""
    sys.stdout.write(f"{CANARIES} canaries, delta {DELTA:g}, {trials} games a row\n")
    row("sigma", "epsilon", "bound", "Gaussian", "accused", "0.2 caught")
    for sigma in (0.5, 1.0, 2.0, 4.0):
        truth, whole, weak = gaussian_epsilon(1 / sigma, DELTA), games(sigma, trials), games(0.2 * sigma, trials)
        means = [float(np.mean([getattr(one, name) for one in whole])) for name in ("epsilon", "gaussian")]
        rates = [float(np.mean([one.epsilon > truth for one in some])) for some in (whole, weak)]
        row(f"{sigma:g}", *(f"{value:.2f}" for value in (truth, *means)), *(f"{rate:.1%}" for rate in rates))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS)
