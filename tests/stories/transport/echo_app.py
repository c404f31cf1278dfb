"""A ServerApp that asks what a script says and writes down who answered what, and when."""

from __future__ import annotations

import json
import time
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.app import FlowerPost, PatientGrid, end_with_parent
from server.grid import GridSites

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """The job file lists steps {frame, to, seconds}; the state folder receives answers.json."""
    end_with_parent()
    script = json.loads(Path(str(context.run_config["job"])).read_text())
    state = Path(str(context.run_config["state"]))
    sites = GridSites(PatientGrid(grid), FlowerPost(), {int(site): key for site, key in script["keys"].items()})
    answers = []
    for step in script["steps"]:
        time.sleep(step.get("pause", 0.0))
        began = time.monotonic()
        present = sorted(sites.present())
        (state / f"began-{len(answers)}").touch()
        replies = {
            site: [None if reply is None else [len(reply), reply[:40].decode()], round(time.monotonic() - began, 3)]
            for site, reply in sites.ask(
                step["frame"].encode() + b"x" * step.get("pad", 0), step["to"], step["seconds"]
            )
        }
        answers.append({"present": present, "replies": replies, "seconds": round(time.monotonic() - began, 3)})
    (state / "answers.tmp").write_text(json.dumps(answers))
    (state / "answers.tmp").replace(state / "answers.json")
