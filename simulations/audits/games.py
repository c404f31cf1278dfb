"""The game of an auditor: records made up by us, each in the data by a coin of ours, and an attacker who must tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import Code, Refusal
from common.randomness import Entropy
from simulations.audits.lower_bounds import CONFIDENCE, Guesses, from_rates, one_run, one_run_gaussian

Coins = NDArray[np.bool_]  # [m], which canaries were in
Scores = NDArray[np.float64]  # [m], larger where the attacker believes in
Release = Callable[[Coins], Scores]
Source = Callable[[], Entropy]  # a new stream for each use, as a site draws one for each release

# Share of the canaries that are guessed, settled before any score is seen. Fewer guesses give a tighter bound for a
# mechanism that keeps its promise, more show one that is far from it; at one half both are near their best.
GUESSED = 0.5


@dataclass(frozen=True)
class Game:
    """Which canaries were in, and what each attack makes of them.

    members  bool [m]      attacks  scores [m] by name of the attack
    Errors: Refusal DATA_INVALID for scores that are no numbers or of another length.
    """

    members: Coins
    attacks: Mapping[str, Scores]

    def __post_init__(self) -> None:
        for scores in self.attacks.values():
            if scores.shape != self.members.shape or np.isnan(scores).any():
                raise Refusal(
                    Code.DATA_INVALID, "Canaries not scored", "a score is missing or no number", "Look at the model"
                )


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What a game proves.

    epsilon   true of the mechanism at least, with the asked confidence over all attacks together
    gaussian  the same if the mechanism is a Gaussian one
    ceiling   the largest figure this game could have given: every guess right
    attack    the one that saw most      guesses  how it went
    """

    epsilon: float
    gaussian: float
    ceiling: float
    attack: str
    guesses: Guesses


def flipped(count: int, entropy: Entropy) -> Coins:
    """A fair coin for each of `count` canaries."""
    return (entropy.words(count) & np.uint64(1)).astype(bool)


def play(release: Release, canaries: int, coins: Entropy) -> Game:
    """Let `release` run over canaries in or out by coins, and once more over none of them.

    The second attack subtracts that other run: it sees through noise that is the same whenever the program runs.
    """
    members = flipped(canaries, coins)
    scores, empty = release(members), release(np.zeros(canaries, bool))
    return Game(members, {"released sum": scores, "difference to an empty run": scores - empty})


def guessed(members: Coins, scores: Scores) -> Guesses:
    """How often "in" for the highest scores and "out" for the lowest is right; ties are broken by their place."""
    each = max(1, round(GUESSED * members.size / 2))
    if members.size < 2 * each:
        raise Refusal(Code.DATA_INVALID, "No game", "it has fewer than two canaries", "Plant more canaries")
    order = np.argsort(scores, kind="stable")
    right = int(members[order[-each:]].sum() + (~members[order[:each]]).sum())
    return Guesses(canaries=members.size, made=2 * each, right=right)


def bound(game: Game, delta: float, confidence: float = CONFIDENCE) -> Bound:
    """What the game proves at `delta`; several attacks share the chance of error (Bonferroni).

    Errors: Refusal DATA_INVALID, CONFIG_INVALID.
    """
    confidence = 1 - (1 - confidence) / len(game.attacks)
    told = {name: guessed(game.members, scores) for name, scores in game.attacks.items()}
    best = max(told, key=lambda name: told[name].right)
    guesses = told[best]
    perfect = Guesses(canaries=guesses.canaries, made=guesses.made, right=guesses.made)
    return Bound(
        epsilon=one_run(guesses, delta, confidence),
        gaussian=one_run_gaussian(guesses, delta, confidence) if delta else 0.0,
        ceiling=one_run(perfect, delta, confidence),
        attack=best,
        guesses=guesses,
    )


def bound_by_rates(game: Game, cuts: Mapping[str, float], delta: float, confidence: float = CONFIDENCE) -> Bound:
    """What a game proves in which no canary's score depends on another's noise: by the rates above `cuts`, by name.

    It is for mechanisms played on coordinates of their own. Where delta is large it proves more than `bound`, which
    pays for it once a canary. Attacks and cuts, fixed before any score is seen, share the chance of error.
    Errors: Refusal DATA_INVALID if all canaries are in, or none; CONFIG_INVALID.
    """
    inside, outside = int(game.members.sum()), int((~game.members).sum())
    if not inside or not outside:
        raise Refusal(Code.DATA_INVALID, "No game", "no canary is in, or none is out", "Play more canaries")
    confidence = 1 - (1 - confidence) / (len(game.attacks) * len(cuts))
    found = []
    for name, scores in game.attacks.items():
        for place, cut in cuts.items():
            hits, alarms = int((scores[game.members] > cut).sum()), int((scores[~game.members] > cut).sum())
            epsilon = from_rates((hits, inside), (alarms, outside), delta, confidence)
            told = Guesses(canaries=game.members.size, made=game.members.size, right=hits + outside - alarms)
            found.append((epsilon, f"{name} against {place}", told))
    epsilon, attack, told = max(found, key=lambda one: one[0])
    ceiling = from_rates((inside, inside), (0, outside), delta, confidence)
    return Bound(epsilon=epsilon, gaussian=0.0, ceiling=ceiling, attack=attack, guesses=told)
