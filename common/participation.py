"""Who contributed to a run and who did not, from its record: the same words for commands, report and card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.errors import Code

MOST_BARS = 12  # of the figure that tells how often sites took part, those that never did apart
_RESTORED = "Its keeper puts the newest copy of the ledger back and starts the site again"
_DO = {
    Code.LEDGER_ROLLED_BACK.value: _RESTORED,
    Code.LEDGER_TAMPERED.value: _RESTORED,
    Code.POLICY_TASK.value: "Its keeper allows the task `ledger` in policy.toml and starts the site again",
}


def participation(
    run: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]], sites: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """One row a site of the manifest, in its order.

    run, rounds  run.json and the objects of rounds.jsonl      sites  names, of a run without a manifest
    Keys: `site`; `rounds` whose sum holds its report; `of` so many; `codes` that stand for it in other rounds, silence
    included; `drawn`, whether rounds ask some of all sites by lot; `ledger`, the code for which none that verifies
    could be had, else None.
    """
    left_out = {one["site"]: one["code"] for one in run.get("refusals") or ()}
    missing = {one["site"]: one["code"] for one in run.get("ledgers_missing") or ()}
    names = [str(site["name"]) for site in run["manifest"]["sites"]] if sites is None else sites
    asked = run.get("job", {}).get("aggregation", {})
    told = {"drawn": bool(asked.get("cohort") or asked.get("site_rate"))}
    return [_row(name, rounds, left_out.get(name)) | told | {"ledger": missing.get(name)} for name in names]


def attendance(size: int, rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many of `size` sites took part and how often, without a row for each: whoever never did is only counted.

    Keys: `sites`; `trained`, those whose report is in at least one sum; `reports` in all sums; `fewest` and `most`
    of one round; `often`, of at most MOST_BARS rows {low, high, sites}: so many took part in low to high rounds.
    """
    times = Counter(site for row in rounds for site in row["sites"])
    sizes = [len(row["sites"]) for row in rounds]
    return {
        "sites": size,
        "trained": len(times),
        "reports": sum(sizes),
        "fewest": min(sizes, default=0),
        "most": max(sizes, default=0),
        "often": _often(size, Counter(times.values())),
    }


def _often(size: int, counted: Mapping[int, int]) -> list[dict[str, int]]:
    """counted: how many sites took part so often."""
    least, most = min(counted, default=0), max(counted, default=0)
    width = -(-(most - least + 1) // MOST_BARS)
    spans = [(low, min(low + width - 1, most)) for low in range(least, most + 1, width)] if counted else []
    never = size - sum(counted.values())
    rows = [{"low": 0, "high": 0, "sites": never}] if never > 0 else []
    for low, high in spans:
        rows.append({"low": low, "high": high, "sites": sum(counted.get(n, 0) for n in range(low, high + 1))})
    return rows


def contributed(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Sites whose report is in at least one sum."""
    return [row["site"] for row in rows if row["rounds"]]


def absences(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """One sentence for each site that contributed nothing."""
    return [f"{row['site']} contributed to no round: {_why(row)}." for row in rows if not row["rounds"]]


def unverified(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """One sentence for each site whose ledger is missing: what that means, and what to do."""
    return [
        f"No ledger of {row['site']} that verifies was to be had when the run ended ({row['ledger']}): nobody can "
        "check what it spent, and the privacy audit of this run fails. "
        f"{_DO.get(row['ledger'], 'Start the site')}; then `hushfed server resume` asks for it again."
        for row in rows
        if row["ledger"]
    ]


def _row(name: str, rounds: Sequence[Mapping[str, Any]], left_out: str | None) -> dict[str, Any]:
    said = {one["code"] for row in rounds for one in row.get("refusals") or () if one["site"] == name}
    counted = sum(name in row["sites"] for row in rounds)
    codes = sorted(said | ({left_out} if left_out else set()))
    return {"site": name, "rounds": counted, "of": len(rounds), "codes": codes}


def _why(row: Mapping[str, Any]) -> str:
    return ", ".join(row["codes"]) or ("it was not drawn, or not online" if row["drawn"] else "it was not online")
