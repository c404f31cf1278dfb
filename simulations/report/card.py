"""The model card: what the model is for, how it was made, what it can do, for whom it was checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from simulations.audits.runs import Run
from simulations.report.drawings import NAMES
from simulations.report.lying import lying_words
from simulations.report.numbers import DASH
from simulations.report.open_words import engine_of
from simulations.report.words import ACCURACIES, limits, words

TEMPLATES = Path(__file__).parent / "templates"


def card(run: Run, found: Mapping[str, Any]) -> str:
    """card.md: Markdown with the YAML front matter that model hubs read.

    Sections as in Mitchell et al. 2019, "Model Cards for Model Reporting". Every text from the run is written as one
    line and, in the front matter, as a JSON string (which YAML reads), so that no value can add a line of its own.
    """
    environment = Environment(  # noqa: S701 - Markdown, not HTML; values pass through `line`
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    sentences = words(run, found)
    environment.filters.update(line=_line, yaml=_yaml, pct=_percent, ends=_ends, share=_share)
    return (
        environment.get_template("card.md")
        .render(
            run=run,
            facts={"started": None, "ended": None, **run.facts},
            job=run.facts["job"],
            found=found,
            names=NAMES,
            measures=ACCURACIES,
            said={name: text.striptags() for name, text in sentences.items() if isinstance(text, Markup)},
            trainers=sentences["trainers"],
            exact=run.exact,
            listed=run.listed,
            lying=_plain(lying_words(run, found)),
            engine=engine_of(run.facts),
            unverified=sentences["unverified"],
            limits=[text.striptags() for text in limits(run, found)],
            versions=sorted((run.facts.get("versions") or {}).items()),
        )
        .lstrip("\n")
    )


def _plain(said: Mapping[str, Any]) -> dict[str, Any]:
    """Sentences without the page's markup."""
    told = {name: value.striptags() for name, value in said.items() if isinstance(value, Markup)}
    return {**said, **told, "measured": [one.striptags() for one in said["measured"]]}


def _line(value: object) -> str:
    """Any text as one line of a Markdown table or list."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _yaml(value: object) -> str:
    return json.dumps(value, ensure_ascii=True).replace("<", "\\u003c")


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f} %"


def _share(value: float | None, name: str) -> str:
    """A metric by its kind, as on the page: differences in per cent, ratios as they are."""
    return f"{value:.2f}" if value is not None and name.endswith("_ratio") else _percent(value)


def _ends(interval: Sequence[float] | None) -> str:
    return DASH if interval is None else f"{_percent(interval[0])} – {_percent(interval[1])}"
