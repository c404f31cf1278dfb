"""Page, card and record of runs with lying sites: signed, measured, and never called robust where they are not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import simulations.baselines
from common.errors import Code, Refusal
from server.robustness import LIMITS, UNBOUND
from simulations.audits.privacy import audit
from simulations.audits.runs import read_run
from simulations.finish import finish
from simulations.report.page import build
from simulations.world import simulate
from tests.simulations.recorded import edit, sign, write_run
from tests.simulations.test_exact import GROUPED
from tests.worlds import scenario

PATCH = {"attack": "patch", "settings": {"target": 1, "size": 3, "share": 0.5}}
FLIP = {"attack": "sign-flip", "knows": "own", "settings": {"scale": 5.0}}
ATTACKS: dict[str, dict[str, Any]] = {
    "backdoor": {**GROUPED, "world.adversaries": {"sites": 2, "from_round": 1, "records": PATCH}},
    "flip": {"world.adversaries": {"sites": 1, "from_round": 2, "updates": FLIP}},
}
Made = Callable[[str], tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A run by the name of its attack, and what the command printed of it."""
    known: dict[str, tuple[Path, dict[str, Any]]] = {}

    def run(name: str) -> tuple[Path, dict[str, Any]]:
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            changes = {"job.rounds": 2, "world.sums": "exact", "job.privacy.noise": "system"}
            world = scenario("none", {**ATTACKS[name], **changes})
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(simulations.baselines, "STEPS", 1)
                known[name] = folder / "run", finish(world, simulate(world, folder / "world"), folder / "run")
        return known[name]

    return run


def text_of(file: Path) -> str:
    bare = re.sub(r"<style>.*?</style>", "", file.read_text(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", "", bare).split())


def facts_of(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "run.json").read_text())
    return read


def test_the_record_tells_who_lied_and_what_came_of_it(made: Made) -> None:
    run, printed = made("backdoor")
    told, rows = facts_of(run)["adversaries"], read_run(run).rounds
    assert (told["count"], len(told["sites"]), told["records"], told["updates"]) == (2, 2, "patch", None)
    backdoor = told["backdoor"]
    assert [row["attack_success"] for row in rows][-1] == backdoor["rate"]["value"]
    assert backdoor["lift"]["value"] == pytest.approx(backdoor["rate"]["value"] - backdoor["base"]["value"])
    assert told["accuracy"]["value"] == pytest.approx(facts_of(run)["accuracy"])
    assert printed["attack"] == {
        "sites": 2,
        "success": backdoor["rate"]["value"],
        "base": backdoor["base"]["value"],
        "lift": backdoor["lift"]["value"],
        "difference": told["difference"]["value"],
    }
    flipped, plain = made("flip")
    assert facts_of(flipped)["adversaries"]["backdoor"] is None
    assert plain["attack"]["success"] is None
    assert plain["attack"]["difference"] < 0.0


def test_the_figures_are_signed_like_all_others(made: Made, tmp_path: Path) -> None:
    run = Path(shutil.copytree(made("backdoor")[0], tmp_path / "run"))
    assert not audit(read_run(run))["problems"]
    edit(run, lambda facts: facts["adversaries"]["backdoor"]["rate"].update(value=0.0))
    assert audit(read_run(run))["problems"] == ["RECORD_MISMATCH"]


def test_page_and_card_say_what_holds_and_what_was_measured(made: Made) -> None:
    """Must: say that backdoors stay open, with the figure beside it; and that the model is for nothing else."""
    run, _ = made("backdoor")
    rate = facts_of(run)["adversaries"]["backdoor"]["rate"]["value"]
    for text in (text_of(run / "report.html"), text_of(run / "card.md")):
        assert LIMITS in text
        assert "9 sites in 3 groups: 1 lying site is outvoted in every round, whatever is sent." in text
        assert "2 of 9 sites lied from round 1 on, as the simulation had them do (patch in records)" in text
        assert f"Of the triggered held-out records {100 * rate:.1f}" in text
        assert "use it for nothing else" in text
    assert "Here 2 lied, more than that." in text_of(run / "report.html")
    assert "Backdoor, round by round" in text_of(run / "report.html")
    page = (run / "report.html").read_bytes()
    build(run)
    assert (run / "report.html").read_bytes() == page


def test_a_mean_is_never_called_robust(made: Made) -> None:
    run, _ = made("flip")
    for text in (text_of(run / "report.html"), text_of(run / "card.md")):
        assert UNBOUND in text
        assert "called robust" in text.lower()
        assert "robust against untargeted attacks" not in text
        assert "there is no backdoor to measure" in text


def rule(name: str, groups: int, **settings: Any) -> Callable[[dict[str, Any]], None]:
    def change(facts: dict[str, Any]) -> None:
        facts["job"]["aggregation"] |= {"strategy": name, "groups": groups, "settings": settings}

    return change


@pytest.mark.parametrize(
    ("change", "said", "holds"),
    [
        (rule("median", 3, liars=1), "4 sites in 3 groups: 1 lying site is outvoted in every round", True),
        (rule("median", 2, liars=1), "outvote 0 lying sites, not 1: 3 groups are needed", False),
        (rule("norm-bound", 3, liars=1, bound=1.0), "bounded, and nobody is outvoted", False),
        (rule("majority-of-the-wise", 3), "This version does not know the job’s rule", False),
        (rule("median", 9, liars=1), "This version does not know the job’s rule", False),
    ],
)
def test_every_report_of_a_vote_states_its_promise_or_refuses_the_word(
    change: Callable[[dict[str, Any]], None], said: str, holds: bool, tmp_path: Path
) -> None:
    """Also of a real federation's run, from its job alone: a coordinator that wrote another promise changes nothing."""
    run = write_run(tmp_path / "run", rounds=2, change=change)
    sign(run)
    build(run)
    page, card = text_of(run / "report.html"), text_of(run / "card.md")
    assert said in page
    assert said in card
    assert ("ROBUST, UNTARGETED" in page) is holds
    assert ("robust against untargeted attacks" in card) is holds
    assert LIMITS in page


def liars(count: int, updates: str | None) -> Callable[[dict[str, Any]], None]:
    """Adversaries of a run of four sites in mode M2, whose noise counts on one site that leaves its own out."""
    figures = dict.fromkeys(("accuracy", "without", "difference", "backdoor", "knows", "records"))

    def change(facts: dict[str, Any]) -> None:
        facts["adversaries"] = {
            "count": count,
            "sites": [],
            "from_round": 1,
            "tested": 0,
            "adaptive": False,
            **figures,
            "updates": updates,
        }

    return change


@pytest.mark.parametrize(("count", "attack", "missing"), [(2, "zero", True), (1, "zero", False), (2, None, False)])
def test_noise_that_liars_leave_out_is_told_where_the_promise_does_not_count_on_it(
    count: int, attack: str | None, missing: bool, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", rounds=2, change=liars(count, attack))
    build(run)
    said = f"counts on at most 1 sites that leave theirs out, and here {count} did: it does not hold for this run"
    assert (said in text_of(run / "report.html")) is missing
    assert (said in text_of(run / "card.md")) is missing


def test_a_record_of_liars_in_another_form_is_refused(tmp_path: Path) -> None:
    for wrong in ({"count": 0}, {"sites": "all"}, {"backdoor": {"tested": 1}}, {"accuracy": {"value": "high"}}):
        run = write_run(tmp_path / "run", rounds=2, change=liars(2, "zero"))
        edit(run, lambda facts, wrong=wrong: facts["adversaries"].update(wrong))
        with pytest.raises(Refusal) as refused:
            read_run(run)
        assert refused.value.code is Code.DATA_INVALID


def test_a_run_without_votes_and_lies_says_nothing_of_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=2)
    build(run)
    assert "Lying sites" not in text_of(run / "report.html")
    assert "Lying sites" not in text_of(run / "card.md")
