"""What this site agrees to, and the line that says why not. Nothing is allowed that no line allows."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, NamedTuple

from common.config import finite
from common.errors import Code, Refusal
from common.privacy.settings import Mode
from common.ranges import not_negative

if TYPE_CHECKING:
    from common.job import Job

TaskName = Literal["offer", "train", "evaluate", "ledger"]
LONGEST_REASON = 200
STATED = 1e-5  # delta at which spending is stated where the policy allows no job that has one


@dataclass(frozen=True, kw_only=True)
class TaskRules:
    """Kinds of orders that are carried out."""

    allow: tuple[TaskName, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelRules:
    """Models by name (shell patterns), and their largest size in parameters."""

    allow: tuple[str, ...] = ()
    max_parameters: int = 0


@dataclass(frozen=True, kw_only=True)
class PrivacyRules:
    """The guarantee that a job must give, and the most that may ever be spent on one data set.

    modes          allowed mechanisms; "none" releases an update without noise
    max_epsilon    over all runs on a data set, at `delta` (job's delta must not be larger)
    reason         why max_epsilon or delta are others than at the last charge: such a change needs one, and the ledger,
                   which the coordinator reads, keeps it
    allow_replay   noise from a seed: for rehearsals on data that are nobody's
    """

    modes: tuple[Mode, ...] = ()
    max_epsilon: float = 0.0
    delta: float = 0.0
    colluding: int = 0
    allow_replay: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        not_negative(self.max_epsilon, "privacy.max_epsilon")
        # a large delta would make every spending look like none
        finite(self.delta, "privacy.delta", at_least=0, at_most=0.01)
        not_negative(self.colluding, "privacy.colluding")
        if len(self.reason) > LONGEST_REASON:
            what, why = "privacy.reason", f"it has more than {LONGEST_REASON} characters"
            raise Refusal(Code.CONFIG_INVALID, what, why, "Say it in a sentence")

    @property
    def stated_delta(self) -> float:
        """The delta at which this site states what was spent."""
        return self.delta or STATED


@dataclass(frozen=True, kw_only=True)
class AggregationRules:
    """How sums are formed. How many sites unmask, or may be corrupt, is a rule of the manifest.

    quorum     fewest sites whose sum may be seen
    protocols  of secure aggregation that this site takes part in; another one must be named here first
    """

    quorum: int = 2
    protocols: tuple[Literal["alm", "bonawitz"], ...] = ("alm",)


@dataclass(frozen=True, kw_only=True)
class DataRules:
    """Data sets and columns (shell patterns) that a job may use, and the fewest records worth protecting."""

    datasets: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    min_records: int = 0


@dataclass(frozen=True, kw_only=True)
class Policy:
    """policy.toml. An empty file refuses everything."""

    tasks: TaskRules = TaskRules()
    models: ModelRules = ModelRules()
    privacy: PrivacyRules = PrivacyRules()
    aggregation: AggregationRules = AggregationRules()
    data: DataRules = DataRules()


class Line(NamedTuple):
    """One rule as it was applied to a job."""

    setting: str  # "[privacy] max_epsilon = 1.0"
    asked: str
    allowed: bool
    code: Code


def lines(policy: Policy, job: Job, task: TaskName, parameters: int, sum_min: int) -> list[Line]:
    """Every rule applied to `job`, in the order in which they decide.

    parameters  number of trainable scalars of the job's model
    sum_min     reports that every opened sum of the job is sure to hold: its quorum, or fewer by the manifest's rules
    """
    privacy, asked = policy.privacy, job.privacy
    return [
        _line("[tasks] allow", policy.tasks.allow, task, task in policy.tasks.allow, Code.POLICY_TASK),
        *_data_lines(policy.data, job),
        _line("[models] allow", policy.models.allow, job.model.name, _any(job.model.name, policy.models.allow),
              Code.POLICY_MODEL),
        _line("[models] max_parameters", policy.models.max_parameters, parameters,
              parameters <= policy.models.max_parameters, Code.POLICY_MODEL),
        _line("[privacy] modes", privacy.modes, asked.mode, asked.mode in privacy.modes, Code.POLICY_PRIVACY),
        *([] if asked.mode == "none" else _guarantee_lines(privacy, job)),
        _line("[aggregation] quorum", policy.aggregation.quorum, sum_min,
              sum_min >= policy.aggregation.quorum, Code.POLICY_SECAGG),
        _line("[aggregation] protocols", policy.aggregation.protocols, f"protocol {job.aggregation.protocol!r}",
              job.aggregation.protocol in policy.aggregation.protocols, Code.POLICY_SECAGG),
    ]  # fmt: skip


def decide(policy: Policy, job: Job, task: TaskName, parameters: int, sum_min: int) -> None:
    """Return if every rule allows the job. Errors: Refusal with the deciding line; its code crosses the wire."""
    for line in lines(policy, job, task, parameters, sum_min):
        if not line.allowed:
            raise Refusal(
                line.code,
                f"Job {job.name!r} refused",
                f"it asks for {line.asked}, and policy.toml says {line.setting}",
                "Change the job, or the policy if you agree",
            )


def _guarantee_lines(rules: PrivacyRules, job: Job) -> list[Line]:
    asked = job.privacy
    most = max(asked.epsilons, default=0.0)
    delta = asked.delta or 1.0
    colluding = asked.colluding or 0
    code = Code.POLICY_PRIVACY
    rows = [
        _line("[privacy] max_epsilon", rules.max_epsilon, most, most <= rules.max_epsilon, code),
        _line("[privacy] delta", rules.delta, delta, delta <= rules.delta, code),
        _line("[privacy] allow_replay", rules.allow_replay, f"noise {asked.noise!r}",
              asked.noise == "system" or rules.allow_replay, code),
    ]  # fmt: skip
    if asked.together:
        what = f"noise that survives {colluding} colluding sites"
        rows.append(_line("[privacy] colluding", rules.colluding, what, colluding >= rules.colluding, code))
    return rows


def _data_lines(rules: DataRules, job: Job) -> list[Line]:
    missing = [name for name in job.columns if not _any(name, rules.columns)]
    return [
        _line("[data] datasets", rules.datasets, job.dataset, _any(job.dataset, rules.datasets),
              Code.POLICY_DATA),
        _line("[data] columns", rules.columns, f"columns {', '.join(missing)}" if missing else "allowed columns",
              not missing, Code.POLICY_DATA),
    ]  # fmt: skip


def _line(setting: str, value: object, asked: object, allowed: bool, code: Code) -> Line:
    shown = list(value) if isinstance(value, tuple) else value
    return Line(f"{setting} = {shown}", str(asked), allowed, code)


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
