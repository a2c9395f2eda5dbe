"""The page of situations speaks of what its experiments run, in words that the glossary has, and of no figure."""

import re
from pathlib import Path

import pytest
import yaml

from experiments.composing.overrides import groups
from smd_research.core.paths import conf_dir

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
SECTIONS = {
    found[1]: section
    for section in PAGE.split("\n## ")[1:]
    if (found := re.search(r"^`experiment=(\w+)`$", section, re.MULTILINE))
}
PARTS = ("Who holds what", "Who could look", "What is promised, and by whom", "What was found", "What remains")


def lines(experiment: str) -> list[str]:
    node = yaml.safe_load((conf_dir() / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8"))
    return [f"{block['common']} {line}" for block in node["cells"] for line in block["sweep"]]


def chosen(experiment: str, group: str) -> set[str]:
    words = " ".join(lines(experiment)).split()
    return {one for word in words if word.startswith(f"{group}=") for one in word.partition("=")[2].split(",")}


def test_every_section_is_an_experiment_and_answers_each_question() -> None:
    assert set(SECTIONS) == {"clinic_cloud", "edge_device", "tuning_service"} <= set(groups(conf_dir())["experiment"])
    for section in SECTIONS.values():
        assert tuple(re.findall(r"^(\w[^\n]*)\n: ", section, re.MULTILINE)) == PARTS


@pytest.mark.parametrize("experiment", SECTIONS)
def test_every_defense_that_is_tried_is_spoken_of(experiment: str) -> None:
    tried = chosen(experiment, "defense") - {"none"}
    assert tried
    assert {name for name in tried if f"`{name}`" not in SECTIONS[experiment]} == set()


def test_every_word_of_the_trade_is_in_the_glossary() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").lower().replace("\n", " ")
    words = set(re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", PAGE.replace("\n  ", " ")))
    assert words
    assert {word for word in words if word.lower().rstrip("s") not in glossary} == set()


def test_no_figure_is_typed() -> None:
    prose = re.sub(r"`[^`]*`|\(.*?\.md.*?\)|^    .*$", "", PAGE, flags=re.MULTILINE)
    assert not re.search(r"\d", prose)


def test_tables_that_are_named_are_there() -> None:
    named = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"tables? ((?:`\w+`(?: and )?)+)", PAGE))))
    assert named
    assert named <= set(groups(conf_dir())["table"])
