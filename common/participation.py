"""Who contributed to a run and who did not, from its record: the same words for commands, report and card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.errors import Code

_RESTORED = "Its keeper puts the newest copy of the ledger back and starts the site again"
_DO = {
    Code.LEDGER_ROLLED_BACK.value: _RESTORED,
    Code.LEDGER_TAMPERED.value: _RESTORED,
    Code.POLICY_TASK.value: "Its keeper allows the task `ledger` in policy.toml and starts the site again",
}


def participation(run: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a site of the manifest, in its order.

    run, rounds  run.json and the objects of rounds.jsonl
    Keys: `site`; `rounds` whose sum holds its report; `of` so many; `codes` that stand for it in other rounds, silence
    included; `ledger`, the code for which none that verifies could be had, else None.
    """
    left_out = {one["site"]: one["code"] for one in run.get("refusals") or ()}
    missing = {one["site"]: one["code"] for one in run.get("ledgers_missing") or ()}
    names = [str(site["name"]) for site in run["manifest"]["sites"]]
    return [_row(name, rounds, left_out.get(name)) | {"ledger": missing.get(name)} for name in names]


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
    return ", ".join(row["codes"]) or "it was not online"
