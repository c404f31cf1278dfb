"""What a run needs to go on after a crash, in one file that is there whole or not at all."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from common.errors import Code, Refusal
from server.durable import write_whole
from server.live_rounds import Cut, rows_at

_SCHEMA = "2"


@dataclass(frozen=True)
class State:
    """Everything that changes from round to round.

    rounds      finished rounds, as rounds.jsonl will show them
    spent       attempts that ended without a sum, by task; the budget affords some of them
    parameters  float32 [d]      memory  the strategy's arrays
    heads       ledger head (hex) and epsilon that each site last acknowledged, by site id
    excluded    sites that refused for good, and with which code
    evaluated   round after which counts were last asked for
    evaluation  those counts as run.json shows them; or None with the code of their failure
    seconds     time spent so far, over all starts
    clip        in force in the next round, in model units, where it adapts; 0 where the job's own holds
    noise       newest correlated noise of the coordinator, newest first, float64 [rounds, lanes]; secret, and gone
                after the last round
    """

    parameters: NDArray[np.float32]
    memory: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    rounds: tuple[dict[str, Any], ...] = ()
    spent: dict[str, int] = field(default_factory=dict)
    heads: dict[int, str] = field(default_factory=dict)
    epsilon: dict[int, float] = field(default_factory=dict)
    excluded: dict[int, str] = field(default_factory=dict)
    evaluated: int = 0
    evaluation: dict[str, Any] | None = None
    evaluation_failure: str | None = None
    seconds: float = 0.0
    clip: float = 0.0
    noise: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)), repr=False)

    def charged(self, site: int, head: bytes, epsilon: float) -> State:
        """The state after a site said what its ledger now holds."""
        return replace(self, heads={**self.heads, site: head.hex()}, epsilon={**self.epsilon, site: epsilon})


def save_checkpoint(path: Path, state: State, run: str, cut: Cut) -> None:
    """Write `state` to `path`: a crash leaves the old file or the new one.

    run  what must be named to read it      cut  where its rounds are, on disk already
    What is written grows with the model and the number of sites, not with the number of rounds.
    """
    arrays: dict[str, NDArray[Any]] = {f"memory.{name}": array for name, array in state.memory.items()}
    arrays |= {"parameters": state.parameters, "noise": state.noise}
    values = {
        "rounds": asdict(cut),
        "spent": state.spent,
        "heads": state.heads,
        "epsilon": state.epsilon,
        "excluded": state.excluded,
        "evaluated": state.evaluated,
        "evaluation": state.evaluation,
        "evaluation_failure": state.evaluation_failure,
        "seconds": state.seconds,
        "clip": state.clip,
    }
    data = save(arrays, {"schema": _SCHEMA, "run": run, "state": json.dumps(values)})
    write_whole(path, data)


def load_checkpoint(path: Path, run: str, live: Path) -> State:
    """The state that `save_checkpoint` wrote. live: the file of its rounds.

    Errors: Refusal FILE_MISSING, CONFIG_INVALID, RUN_UNKNOWN.
    """
    if not path.exists():
        raise Refusal(Code.FILE_MISSING, f"Checkpoint {path} not read", "there is none", "Start the run instead")
    try:
        with safe_open(path, "np") as file:
            meta = file.metadata()
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        if (meta["schema"], meta["run"]) == (_SCHEMA, run):
            return _state_of(arrays, json.loads(meta["state"]), live)
    except (SafetensorError, OSError, LookupError, ValueError, TypeError, AttributeError):
        raise Refusal(
            Code.CONFIG_INVALID,
            f"Checkpoint {path} not read",
            "it is damaged",
            "Restore it, or give the run up with `hushfed server discard` and start it anew",
        ) from None
    do = "Name its own run and job, or give that run up with `hushfed server discard`"
    raise Refusal(Code.RUN_UNKNOWN, f"Checkpoint {path} not used", "it is of another run", do)


def _state_of(arrays: dict[str, NDArray[Any]], values: dict[str, Any], live: Path) -> State:
    return State(
        parameters=arrays.pop("parameters"),
        noise=arrays.pop("noise"),
        memory={name.removeprefix("memory."): array for name, array in arrays.items()},
        rounds=rows_at(live, values["rounds"]),
        spent=values["spent"],
        heads=_by_site(values["heads"]),
        epsilon=_by_site(values["epsilon"]),
        excluded=_by_site(values["excluded"]),
        evaluated=values["evaluated"],
        evaluation=values["evaluation"],
        evaluation_failure=values["evaluation_failure"],
        seconds=values["seconds"],
        clip=values["clip"],
    )


def _by_site(values: dict[str, Any]) -> dict[int, Any]:
    return {int(site): value for site, value in values.items()}
