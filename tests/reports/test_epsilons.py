"""Epsilons of different notions never stand in one column, or on one axis, without saying which they are."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from made_records import make_cell, make_record

from experiments.commands.table import expand
from experiments.composing.components import options_of
from experiments.composing.declared import sized
from smd_research.core.paths import conf_dir
from smd_research.defenses.base import PublicText
from smd_research.defenses.dp_hidden import DpHidden
from smd_research.defenses.dp_rewrite import DpRewrite
from smd_research.defenses.dp_text import DpText
from smd_research.defenses.smd import Smd
from smd_research.models import sources
from smd_research.records import frame_of
from smd_research.reports.designs import tell_apart
from smd_research.reports.epsilons import (
    HEURISTIC,
    MAHALANOBIS,
    METRIC,
    RELEASED,
    REPLY,
    SENSITIVE,
    SET,
    TOKEN,
    WHOLE_TEXT,
    WRITTEN,
    Notion,
    notion,
)
from smd_research.reports.figures.epsilon import epsilon_figure
from smd_research.reports.render.text import markdown
from smd_research.reports.tables.layout import Figures, layout
from smd_research.reports.tables.summary import summary

DEFENSES = sorted(path.stem for path in (conf_dir() / "defense").glob("*.yaml"))
TABLES = sorted(path.stem for path in (conf_dir() / "table").glob("*.yaml"))
PROMISED: dict[str, tuple[Any, str, dict[str, Any], str, Notion]] = {
    "sanitised text": (DpText, "dp_text", {}, "epsilon", METRIC),
    "sensitive words": (DpText, "dp_text", {"mechanism": "santext_plus", "epsilon": 8.0}, "epsilon", SENSITIVE),
    "sets of words": (DpText, "dp_text", {"mechanism": "custext"}, "epsilon", SET),
    "stretched noise": (DpText, "dp_text", {"mechanism": "mahalanobis", "epsilon": 8.0}, "epsilon", MAHALANOBIS),
    "rewritten text": (DpRewrite, "dp_rewrite", {}, "epsilon", WRITTEN),
    "embeddings": (DpHidden, "dp_hidden", {}, "epsilon", TOKEN),
    "deeper states": (DpHidden, "dp_hidden", {"layer": 1, "epsilon": 8.0}, "epsilon", WHOLE_TEXT),
    "replies": (Smd, "smd", {"noise_epsilon": 1.0, "noise_log_weight": 400.0}, "noise_epsilon", REPLY),
}


def options(defense: str) -> dict[str, Any]:
    node = yaml.safe_load((conf_dir() / "defense" / f"{defense}.yaml").read_text(encoding="utf-8"))
    return options_of(node)


@pytest.mark.parametrize("defense", DEFENSES)
def test_every_epsilon_that_can_be_set_has_a_notion(defense: str) -> None:
    held = options(defense)
    epsilons = [name for name in held if name == "epsilon" or name.endswith("_epsilon")]
    assert all(notion(defense, name, held) for name in epsilons)


@pytest.mark.parametrize("name", PROMISED)
def test_the_notion_is_what_the_defense_promises(name: str) -> None:
    made, defense, changed, option, expected = PROMISED[name]
    corpus = tuple(tuple(range(5 + i, 25 + i)) for i in range(8))
    promise = made(**changed).prepare(sources.random("llama"), PublicText(corpus)).guarantee
    assert promise is not None
    assert notion(defense, option, changed) == expected
    units = {
        "token and unit of distance": METRIC,
        "token and unit of Mahalanobis distance": MAHALANOBIS,
        "sensitive token and unit of distance": SENSITIVE,
        "token of a set": SET,
        "token": TOKEN,
        "written token": WRITTEN,
        "sequence": WHOLE_TEXT,
        "reply": REPLY,
    }
    assert units[promise.unit] == expected


@pytest.mark.parametrize(
    "changed", [{"mechanism": "rantext", "epsilon": 3.0}, {"mechanism": "custext", "mapping": "own"}]
)
def test_a_setting_that_promises_nothing_is_no_epsilon_of_the_others(changed: dict[str, Any]) -> None:
    promise = DpText(**changed).prepare(sources.random("llama")).guarantee
    assert promise is not None
    assert promise.notion == "heuristic"
    assert notion("dp_text", "epsilon", changed) == HEURISTIC


@pytest.mark.parametrize(
    ("defense", "changed", "expected"),
    [
        ("dp_hidden", {"calibration": "released", "layer": 0}, RELEASED),
        ("split_denoise", {"sampler": "released"}, RELEASED),
        ("dp_rewrite", {"clipped": False}, HEURISTIC),
    ],
)
def test_what_released_code_claims_stands_in_no_column_of_what_is_promised(
    defense: str, changed: dict[str, Any], expected: Notion
) -> None:
    held = {**options(defense), "epsilon": 8.0}
    assert notion(defense, "epsilon", {**held, **changed}) == expected != notion(defense, "epsilon", held)


def records() -> list[Any]:
    defenses = [{"name": "dp_text", "epsilon": 8.0}, {"name": "dp_text", "epsilon": 4.0}]
    defenses += [{"name": "dp_hidden", "layer": 0, "unit": None, "epsilon": 8.0}]
    defenses += [{"name": "dp_hidden", "layer": 2, "unit": None, "epsilon": 8.0}]
    return [make_record(make_cell(defense=defense)) for defense in defenses]


def test_a_row_says_what_its_epsilon_is_of() -> None:
    shown = markdown(summary(frame_of(records())))
    for word in ("dp_text epsilon[metric]=8", "dp_hidden epsilon[token]=8", "dp_hidden epsilon[whole-text]=8"):
        assert word in shown


def test_a_column_of_one_notion_says_so_once_and_one_of_several_in_each_row() -> None:
    rows, columns = {"defense": None, "defense.layer": None, "defense.epsilon": None}, [Figures("kl", "kl")]
    mixed = layout(frame_of(records()), rows, columns)
    assert mixed.columns[2].unit == ""
    assert {row[2].text for row in mixed.rows} == {"8 (metric)", "4 (metric)", "8 (token)", "8 (whole-text)"}
    alone = layout(frame_of(records()[:2]), rows, columns)
    assert alone.columns[2].unit == METRIC.unit
    assert {row[2].text for row in alone.rows} == {"4", "8"}


def test_an_axis_says_it_too() -> None:
    figure = epsilon_figure(frame_of(records()[:2]), "dp_text", utility="token_accuracy")
    assert {axes.get_xlabel() for axes in figure.axes} == {f"epsilon, {METRIC.unit}"}


def defenses_of(table: str) -> Iterator[tuple[str, str]]:
    """The defenses of a table's cells, each with its options as JSON, every epsilon chosen."""
    node = yaml.safe_load((conf_dir() / "table" / f"{table}.yaml").read_text(encoding="utf-8"))
    for words in expand(sized(node.get("sweep", []), "small"), str(sized(node.get("common", ""), "small")).split()):
        said = {key.removeprefix("defense."): value for key, _, value in (word.partition("=") for word in words)}
        name = said.get("defense", "none")
        held = options(name)
        held |= {key: yaml.safe_load(value) for key, value in said.items() if key in held}
        yield name, json.dumps(held | {key: held[key] or 1.0 for key in held if "epsilon" in key}, sort_keys=True)


@pytest.mark.parametrize("table", TABLES)
def test_no_table_mixes_notions_unlabelled(table: str) -> None:
    for (name, text), label in tell_apart(defenses_of(table)).items():
        held = json.loads(text)
        for option, word in re.findall(r"(\w*epsilon)(\[[\w-]+\])?=", label):
            kind = notion(name, option, held)
            assert kind is not None
            assert word == f"[{kind.word}]"
