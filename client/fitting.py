"""Whether what an order asks for fits its job: its session, its groups, the fewest reports of a sum."""

from __future__ import annotations

from collections.abc import Sequence

from common.errors import Code, Refusal
from common.job import Job
from common.messages import Members, RecoverOrder, UnmaskOrder, WorkOrder
from common.secagg.statements import Aggregation
from common.secagg.wire import SessionRecord
from common.work import Work


def refuse_mixed(asked: Sequence[Aggregation]) -> None:
    """Refuse sets that are not the groups of one attempt, in their order. Errors: Refusal E_SET."""
    numbers = [each.number for each in asked]
    if numbers != sorted(set(numbers)) or len({each.attempt for each in asked}) > 1:
        why = "they are not groups of one attempt, in their order"
        raise Refusal(Code.E_SET, "Sets not unmasked", why, "Send one order an attempt")


def refuse_thin(asked: Members, work: Work) -> None:
    """Refuse a sum below the job's own quorum, since its noise was drawn for so many sites. Errors: Refusal E_SET.

    Where reports are masked for some unmasking sites only, this one counts those that it must see of so many.
    """
    least = work.manifest.rules.reports_each(work.job.aggregation.quorum)
    if len(asked.members) < least:
        raise Refusal(
            Code.E_SET,
            f"Sum of {len(asked.members)} reports not unmasked",
            f"the job's noise counts on sums for which this site sees {least}",
            "Wait for more reports and repeat the round",
        )


def refuse_stranger(session: SessionRecord, job: Job) -> None:
    """Refuse a session that was opened for another job than the order's, or for a job of another protocol."""
    if session.job != job.digest() or job.aggregation.protocol != "alm":
        raise Refusal(
            Code.E_POLICY, "Session refused", "it is of another job or protocol", "Open a session for this job"
        )


def refuse_unknown_group(order: WorkOrder | UnmaskOrder | RecoverOrder, work: Work, number: int) -> None:
    """Refuse a number for a group that this task does not have: counts are one sum. Errors: Refusal E_ROUND."""
    if work.group_of(order.session, number) >= (count := work.groups(order.task)):
        why = f"it is for a group of its attempt that there is not: sums of this task are {count}"
        raise Refusal(
            Code.E_ROUND, f"Number {number} refused", why, "Begin an attempt at a multiple of the job's groups"
        )
