"""How well an attack worked: accuracy, backdoor success, and its lift over the base rate, each with an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.audits.intervals import Interval, Share, difference, quantile, wilson

Classes = NDArray[np.int64]  # class numbers, [n]


@dataclass(frozen=True)
class Success:
    """How often triggered records get the class that the attacker wants.

    rate  with the attack      base  without it: a model may confuse these records by itself
    lift  rate - base, the only one of the three that is the attack's doing
    """

    rate: Interval
    base: Interval
    lift: Interval


def hit_rate(predicted: Classes, wanted: Classes, level: float = 0.95) -> Interval | None:
    """Share of records whose predicted class is the wanted one, with Wilson's interval; None without records.

    With true labels as `wanted` this is accuracy.
    """
    share = _share(predicted, wanted)
    return wilson(share, quantile(level, 1)) if share.total else None


def success(attacked: Classes, unattacked: Classes, wanted: Classes, level: float = 0.95) -> Success | None:
    """Success of an attack on triggered records: classes predicted by the attacked model and by one that was trained
    without the attack, and the class that the attacker wants for each. None without records.

    The lift has Newcombe's interval (1998, method 10), which treats the two models as if they had seen different
    records: on the same records it is rather too wide.
    """
    with_attack, without = _share(attacked, wanted), _share(unattacked, wanted)
    if not with_attack.total:
        return None
    z = quantile(level, 1)
    return Success(wilson(with_attack, z), wilson(without, z), difference(with_attack, without, z))


def _share(predicted: Classes, wanted: Classes) -> Share:
    if predicted.shape != wanted.shape:
        raise ValueError("one prediction for each record")
    return Share(hits=float((predicted == wanted).sum()), total=float(len(wanted)))
