"""What deadlines did to a run: how long it took on the world's clock, which answers were lost, and whose records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from simulations.course import ENDS, Course, Turnout

HOUR = 3600.0
JUDGED = 64  # slow sites of a population whose held-out records are looked at


def with_answers(rows: Sequence[dict[str, Any]], course: Course) -> list[dict[str, Any]]:
    """`rows` of rounds.jsonl, each with `answers`: how the orders of work of all its attempts ended."""
    by_round: dict[int, list[Turnout]] = {}
    for each in course.log:
        by_round.setdefault(each.round, []).append(each)
    return [row | {"answers": _counted(by_round.get(row["round"], ()))} for row in rows]


def told(
    course: Course, rows: Sequence[Mapping[str, Any]], accuracy: Callable[[Sequence[int]], float | None]
) -> dict[str, Any]:
    """The entry `simulated` of run.json.

    rows      of rounds.jsonl      accuracy  of the model on what some sites, by id, hold out
    seconds   on the world's clock, until the last round closed
    answers   how all orders of work ended      late  share of those begun that came after the deadline
    slow      sites that take more than twice the median: their `share` of all records, and of those `summed` in closed
              rounds; `weight` is the second over the first, 1 where deadlines took nothing from them; `accuracy` of
              the model on what they hold out. None where no site is slow
    """
    counts = _counted(course.log)
    begun = sum(counts[end] for end in ENDS if end not in ("busy", "away"))
    return {
        "seconds": rows[-1]["elapsed"] if rows else 0.0,
        "answers": counts,
        "late": counts["late"] / begun if begun else None,
        "slow": _slow(course, accuracy),
    }


def printed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What commands print of the entry `simulated`."""
    slow = entry["slow"] or {}
    return {
        "hours": round(entry["seconds"] / HOUR, 3),
        "late": entry["late"],
        "slow_weight": slow.get("weight"),
        "slow_accuracy": slow.get("accuracy"),
    }


def curve_of(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[float, float], ...]:
    """Hours on the world's clock at the end of each round, and the accuracy then, as far as it is known."""
    known = [(row["elapsed"] / HOUR, row.get("exact_accuracy")) for row in rows]
    return tuple((hours, float(accuracy)) for hours, accuracy in known if accuracy is not None)


def _counted(log: Sequence[Turnout]) -> dict[str, int]:
    found: dict[str, int] = {end: sum(each.ends[end] for each in log) for end in ENDS}
    return {"asked": sum(found.values()), **found}


def _slow(course: Course, accuracy: Callable[[Sequence[int]], float | None]) -> dict[str, float | None] | None:
    looked = course.some()
    slow = [site for site in looked if course.slow(site)]
    if not slow:
        return None
    share = sum(map(course.records, slow)) / sum(map(course.records, looked))
    closed = {
        (each.task, each.round): each for each in course.log if each.task == "train"
    }.values()  # the last attempts
    records = sum(each.records for each in closed)
    summed = sum(each.slow_records for each in closed) / records if records else None
    return {
        "share": share,
        "summed": summed,
        "weight": None if summed is None else summed / share,
        "accuracy": accuracy(slow[:JUDGED]),
    }
