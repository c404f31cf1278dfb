"""job.toml, read once and refused where its settings cannot live together."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

from common.config import read
from common.errors import Code, Refusal
from common.job import Job
from common.learning.plan import TrainingPlan
from common.orders import Task
from common.privacy.clipping.validate import validate
from common.roster import Roster
from common.secagg.manifest import Manifest
from common.secagg.pairwise.attempt import check_manifest
from common.secagg.pairwise.strength import shape_of
from common.secagg.rules import Rules
from common.work import model_of, work_of
from server.robustness import promise
from server.strategies.catalogue import strategy
from server.strategies.strategy import Combine


def read_job(path: Path, manifest: Manifest) -> Job:
    """The job of a file, checked against the federation it is for. Errors: Refusal CONFIG_INVALID, JOB_INVALID."""
    return prepared(read(Job, path), manifest)


def prepared(job: Job, roster: Roster) -> Job:
    """The job as it is sent to sites: with what its strategy changes in local training. Errors: as `check`."""
    chosen = strategy(job.aggregation.strategy, **job.aggregation.settings)
    training = chosen.local(job.training)
    _refuse_overwritten(job.training, training, job.aggregation.strategy)
    job = replace(job, training=training)
    check(job, roster)
    _check_groups(job, chosen.combine, len(roster.ids))
    return job


def check(job: Job, roster: Roster) -> None:
    """Refuse a job whose settings cannot live together, or not in this federation. Errors: Refusal JOB_INVALID."""
    sites = len(roster.ids)
    _check_sites(job, roster.rules, sites)
    _check_cohort(job, sites)
    if isinstance(roster, Manifest):
        _check_protocol(job, roster)
    if job.privacy.separation:
        _check_turns(job, sites)
    _check_codec(job)
    if job.privacy.mode == "M2":
        _check_step(job.training)
    if job.privacy.by_record:
        validate(model_of(job), job.data.shape)
    work = work_of(job, roster)
    for task in get_args(Task):
        _ = work.plans(task)  # refused here if no noise is enough


def _refuse_overwritten(asked: TrainingPlan, used: TrainingPlan, name: str) -> None:
    """A setting that the strategy decides for itself must not be there with another value."""
    for field in fields(asked):
        wanted, given = getattr(asked, field.name), getattr(used, field.name)
        if wanted not in (given, field.default):
            raise _invalid(
                f"training.{field.name} = {wanted} under strategy {name!r}",
                f"that strategy uses {given}, whatever the job says",
                "Remove the setting, or choose a strategy that uses it",
            )


def _check_sites(job: Job, rules: Rules, sites: int) -> None:
    asked = job.aggregation
    if not rules.quorum_min <= asked.quorum <= sites:
        raise _invalid(
            f"aggregation.quorum = {asked.quorum}",
            f"the manifest demands {rules.quorum_min} to {sites} sites",
            "Choose a quorum in that range",
        )
    if asked.session_rounds < asked.groups:
        raise _invalid(
            f"aggregation.session_rounds = {asked.session_rounds}",
            f"one attempt takes {asked.groups} numbers of a session, one for each group",
            "Raise it",
        )
    if asked.session_rounds > rules.rounds_max:
        raise _invalid(
            f"aggregation.session_rounds = {asked.session_rounds}",
            f"the manifest allows {rules.rounds_max} aggregations a session",
            "Lower it",
        )


def _check_protocol(job: Job, manifest: Manifest) -> None:
    asked = job.aggregation
    if asked.protocol == "bonawitz":
        _check_pairwise(job, manifest)
    elif not manifest.rules.unmaskers_min:
        raise _invalid(
            f"aggregation.protocol = {asked.protocol!r}",
            "the manifest has unmaskers_min = 0, so that no site unmasks",
            'Choose protocol = "bonawitz", or ask governance for unmasking sites',
        )


def _check_cohort(job: Job, sites: int) -> None:
    """Refuse cohorts that are larger than the federation or likely to miss the quorum, or cut across turns."""
    asked = job.aggregation
    if asked.cohort is None and asked.site_rate is None:
        return
    if job.privacy.separation:
        raise _invalid(
            "aggregation.cohort or aggregation.site_rate in mode M5",
            "turns decide there which sites a round asks",
            "Remove it; a larger separation makes smaller rounds",
        )
    needed, expected = asked.quorum * asked.groups, asked.cohort or sites * (asked.site_rate or 0.0)
    if not needed <= expected <= sites:
        raise _invalid(
            f"Rounds of {expected:g} sites",
            f"they need {needed} reports, and there are {sites} sites",
            "Choose aggregation.cohort or site_rate between the two",
        )


def _check_pairwise(job: Job, manifest: Manifest) -> None:
    """Refuse what pairwise masks cannot guarantee over all sites with the corrupt ones that governance counts on."""
    try:
        check_manifest(manifest)
        shape_of(len(manifest.sites), manifest.rules.corrupt_max, job.aggregation.quorum)
    except Refusal as refusal:
        raise _invalid(f"aggregation.protocol = 'bonawitz': {refusal.what}", refusal.why, refusal.do) from None


def _check_groups(job: Job, combine: Combine, sites: int) -> None:
    """Groups are for rules that vote, and they need enough of them."""
    asked, name = job.aggregation, f"Strategy {job.aggregation.strategy!r}"
    if asked.groups > 1 and asked.protocol != "alm":
        raise _invalid(
            f"aggregation.groups = {asked.groups} with protocol = {asked.protocol!r}",
            "groups are built for 'alm' alone",
            'Choose protocol = "alm"',
        )
    if combine.needs == "sum" and asked.groups > 1:
        raise _invalid(
            f"{name} with aggregation.groups = {asked.groups}",
            "it needs one sum, and smaller sums would be shown for nothing",
            "Remove groups, or choose a rule that votes, such as median",
        )
    if combine.needs == "groups" and not combine.least <= asked.groups <= combine.most:
        raise _not_outvoted(job, combine, sites)
    if asked.groups * asked.quorum > sites:
        raise _invalid(
            f"aggregation.groups = {asked.groups} with quorum = {asked.quorum}",
            f"every group needs its quorum, and the manifest names {sites} sites",
            "Plan fewer groups or a smaller quorum",
        )


def _not_outvoted(job: Job, combine: Combine, sites: int) -> Refusal:
    """Too few groups for the liars that the job promises to outvote, or more than the rule can look at."""
    groups, liars = job.aggregation.groups, combine.liars
    what = f"Strategy {job.aggregation.strategy!r} with aggregation.groups = {groups}"
    if groups > combine.most:
        why = f"it looks at every subset of groups, so {combine.most} are the most"
        return _invalid(what, why, "Plan fewer groups, or choose another rule")
    why = f"{liars} lying sites can spoil as many groups, so {combine.least} are needed"
    if groups <= (cohort := job.aggregation.cohort or sites) <= sites and liars <= sites:
        lost = promise(combine, sites=sites, groups=groups, cohort=cohort).lost
        why += f"; with {groups} of {cohort} sites the liars win a draw with a chance of {lost:.2g} in each round"
    return _invalid(what, why, "Plan more groups, or promise fewer liars")


def _check_step(training: TrainingPlan) -> None:
    """In mode M2 a site sends the gradient of one step, and the server takes the step."""
    if training.local_steps != 1:
        raise _invalid(
            f"training.local_steps = {training.local_steps} in mode M2",
            "each step needs a secure sum of its own, or the noise does not cover it",
            "Set local_steps = 1, or choose mode M1",
        )
    if training.optimizer != "sgd" or any(training.optimizer_settings.values()):
        raise _invalid(
            f"training.optimizer = {training.optimizer!r} with settings {training.optimizer_settings} in mode M2",
            "no step is taken at the sites, so nothing would use it",
            "Use plain sgd, and a strategy such as fedadam or fedavgm at the server",
        )


def _check_turns(job: Job, sites: int) -> None:
    """Turns leave each round a part of the sites, and their noise spans rounds."""
    turns = job.privacy.separation or 1
    if sites // turns < job.aggregation.quorum:
        raise _invalid(
            f"privacy.separation = {turns} with aggregation.quorum = {job.aggregation.quorum}",
            f"a round has the turn of {sites // turns} of {sites} sites",
            "Lower the separation or the quorum, or wait for more sites",
        )
    if job.aggregation.groups > 1:
        raise _invalid(
            f"aggregation.groups = {job.aggregation.groups} in mode M5",
            "noise that cancels over rounds needs one sum a round",
            "Remove groups, or choose mode M3 or M4",
        )


def _check_codec(job: Job) -> None:
    ranged = job.privacy.mode in ("M1", "none")
    given = (job.aggregation.bits is not None, job.aggregation.bound is not None)
    if ranged and not all(given):
        raise _invalid(
            f"Mode {job.privacy.mode} without aggregation.bits and aggregation.bound",
            "updates are sent as integers of that ring, each coordinate clipped to that bound",
            "Give both, such as bits = 24 and bound = 0.1",
        )
    if not ranged and (given[1] or (given[0] and job.privacy.mode != "M4")):
        raise _invalid(
            f"aggregation.bits or aggregation.bound in mode {job.privacy.mode}",
            "ring and scale follow from the noise there",
            "Remove them",
        )


def _invalid(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.JOB_INVALID, what, why, do)
