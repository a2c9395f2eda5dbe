"""Every component says whose work it is; every key has its entry, every entry its component."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.composing.citing import FILE, LABORATORY, OWN, bibliography
from experiments.composing.components import counted_options, options_of
from experiments.composing.conditions import Condition
from experiments.composing.overrides import groups
from smd_research.core.cell import COMPONENTS, OPTIONAL
from smd_research.core.paths import conf_dir

ROOT = Path(__file__).resolve().parents[2]
CONF = conf_dir()
ENTRIES = bibliography([CONF])
FIELDS = r"(?:  [a-z]+ = \{.+\},\n)+"
WHOLE = re.compile(rf"(?:% .+\n)+(?:\n@(?:misc|article|inproceedings)\{{[a-z0-9_]+,\n{FIELDS}\}}\n)+")
NOTED = {
    f"{group}={name}": yaml.safe_load((CONF / group / f"{name}.yaml").read_text(encoding="utf-8"))
    for group in (*COMPONENTS, *OPTIONAL, "table")
    for name in groups(CONF)[group]
}
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def field(entry: str, name: str) -> str:
    (value,) = re.findall(rf"^  {name} = \{{(.*)\}},$", entry, re.MULTILINE)
    return str(value).strip("{}")


def keys(note: Any) -> Iterator[str]:
    """All keys of a note, whatever the options are."""
    if isinstance(note, str):
        yield note
    elif isinstance(note, dict):
        for value in note.values():
            yield from keys(value)
    else:
        for one in note or []:
            yield from keys(one)


def conditions(note: Any) -> Iterator[Condition]:
    for one in note if isinstance(note, list) else [note]:
        if isinstance(one, dict):
            yield from (Condition.of(when) for when in one)


def test_the_bibliography_has_one_field_a_line_and_nothing_else() -> None:
    assert WHOLE.fullmatch((CONF / FILE).read_text(encoding="utf-8"))
    assert len(ENTRIES) > 40
    for key, entry in ENTRIES.items():
        assert field(entry, "title"), key
        assert field(entry, "author"), key
        assert entry.count("{") == entry.count("}"), key
        if key != LABORATORY:
            assert key.startswith(re.sub(r"\W", "", field(entry, "author").partition(",")[0].lower())), key
            assert field(entry, "year") in key, key
        if "arXiv preprint" in entry:
            assert field(entry, "journal").endswith(field(entry, "eprint")), key


@pytest.mark.parametrize("name", [name for name in NOTED if name.split("=")[0] in ("defense", "attack", "tuning")])
def test_every_defense_attack_and_tuning_says_whose_work_it_is(name: str) -> None:
    node = NOTED[name]
    inherited = any(isinstance(one, str) and one != "_self_" for one in node.get("defaults", []))
    assert "cites" in node or inherited


def test_every_key_has_an_entry_and_every_entry_is_cited() -> None:
    used = {key for node in NOTED.values() for key in keys(node.get("cites"))} - {OWN}
    assert used == set(ENTRIES) - {LABORATORY}


@pytest.mark.parametrize("name", NOTED)
def test_a_condition_is_on_an_option_and_the_note_is_none(name: str) -> None:
    node = NOTED[name]
    assert {one.name for one in conditions(node.get("cites"))} <= set(options_of(node))
    assert "cites" not in counted_options(node)  # whose work it is changes no cell


@pytest.mark.parametrize("name", [name for name, node in NOTED.items() if node.get("benches")])
def test_a_table_of_benches_has_no_components_and_says_so_itself(name: str) -> None:
    assert NOTED[name].get("cites")


@pytest.mark.parametrize("place", ["attacks", "smd_research/defenses", "conf"])
def test_every_paper_that_the_code_names_by_its_number_is_in_the_bibliography(place: str) -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / place).rglob("*.[py][ya]*")]
    named = {number for text in texts for number in re.findall(r"\b(\d{4}\.\d{5})(?:v\d)?\b", text)}
    known = {field(entry, "eprint") for entry in ENTRIES.values() if "eprint" in entry}
    assert named
    assert named <= known


def test_the_laboratory_s_entry_is_that_of_the_citation_file() -> None:
    entry, project = (
        ENTRIES[LABORATORY],
        tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"],
    )
    assert field(entry, "title") == CITATION["title"]
    assert field(entry, "author") == CITATION["authors"][0]["name"]
    assert field(entry, "version") == str(CITATION["version"]) == project["version"]
    assert CITATION["license"] in entry


@pytest.mark.parametrize("reference", CITATION["references"], ids=lambda one: one["url"])
def test_a_paper_of_the_citation_file_is_the_same_in_the_bibliography(reference: dict[str, Any]) -> None:
    (entry,) = (entry for entry in ENTRIES.values() if reference["url"].rpartition("/")[2] in entry)
    assert field(entry, "title") == reference["title"]
    assert field(entry, "year") == str(reference["year"])
    people = [f"{one['family-names']}, {one['given-names']}" for one in reference["authors"]]
    assert field(entry, "author") == " and ".join(people)
