"""What a component's YAML notes beside its options: its version, and options that came later."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import initialize_config_dir

from experiments.composing.app import VERSION_BASE
from experiments.composing.build import build
from experiments.composing.cells import composed
from experiments.composing.components import counted_options, options_of, version_of
from smd_research.core.cell import COMPONENTS, OPTIONAL
from smd_research.core.errors import ConfigError
from smd_research.core.paths import conf_dir

OLD = {"_target_": "fractions.Fraction", "numerator": 3}
"""A component as it was when its first records were written."""

NEW = {**OLD, "version": 2, "later": {"denominator": 4, "reply": "mga"}, "denominator": 4, "reply": "mga"}
"""The same after two options came, with the values that leave everything as it was."""


def test_an_option_that_came_later_is_no_part_of_the_cell_with_the_value_of_the_time_before() -> None:
    assert counted_options(NEW) == OLD
    assert counted_options({**NEW, "denominator": 4.0}) == OLD
    assert counted_options({**NEW, "reply": "mg"}) == {**OLD, "reply": "mg"}
    assert counted_options({**NEW, "reply": None}) == {**OLD, "reply": None}
    assert options_of(NEW) == {**OLD, "denominator": 4, "reply": "mga"}


def test_later_names_options_that_there_are() -> None:
    with pytest.raises(ConfigError, match="later names 'denominatr'"):
        counted_options({**OLD, "later": {"denominatr": 1}})


def test_a_raise_that_changed_nothing_for_some_options_leaves_their_version() -> None:
    node = {**NEW, "version": 3, "unchanged": {"denominator": [4], "reply": ["mga", None]}}
    assert version_of(node) == version_of({**node, "denominator": 4.0}) == version_of({**node, "reply": None}) == 2
    assert version_of({**node, "reply": "mg"}) == version_of({**node, "denominator": 5}) == 3
    with pytest.raises(ConfigError, match="unchanged names 'denominatr'"):
        version_of({**node, "unchanged": {"denominatr": [1]}})


def test_a_raise_that_changed_numbers_beside_some_parts_alone_leaves_the_version_elsewhere() -> None:
    node = {**OLD, "version": 3, "changed": {"defense": ["dp_hidden"]}}
    assert version_of(node, {"defense": "dp_hidden", "attack": "none"}) == 3
    assert version_of(node, {"defense": "split", "attack": "none"}) == 2
    assert version_of(node) == 3


def test_notes_never_reach_a_constructor() -> None:
    kept = {key: value for key, value in NEW.items() if key != "reply"}
    assert str(build(kept)) == "3/4"


def test_a_version_is_one_where_none_is_stated() -> None:
    assert (version_of(OLD), version_of(NEW)) == (1, 2)


@pytest.mark.parametrize("stated", [0, 1.5, "2", True, None])
def test_a_version_is_a_whole_number(stated: Any) -> None:
    with pytest.raises(ConfigError, match="version is a whole number"):
        version_of({**OLD, "version": stated})


def test_a_component_of_ones_own_keeps_its_ids_when_options_come_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way from YAML to id, with a neutral value that is not null."""
    (tmp_path / "attack").mkdir()
    (tmp_path / "kept.py").write_text("class B:\n    def __init__(self, name, steps, reply='mga', share=0.5): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "attack" / "before.yaml").write_text("_target_: kept.B\nname: mine\nsteps: 3\n")
    (tmp_path / "attack" / "after.yaml").write_text(
        "_target_: kept.B\nlater: { reply: mga, share: 0.5 }\nname: mine\nsteps: 3\nreply: mga\nshare: 0.5\n"
    )
    (tmp_path / "attack" / "raised.yaml").write_text("_target_: kept.B\nversion: 2\nname: mine\nsteps: 3\n")
    extra = f"hydra.searchpath=[file://{tmp_path}]"
    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        before, after, moved, raised = (
            composed([*words, extra]).cell
            for words in (["attack=before"], ["attack=after"], ["attack=after", "attack.reply=mg"], ["attack=raised"])
        )
    assert before.id == after.id
    assert before.attack == after.attack
    assert len({before.id, moved.id, raised.id}) == 3
    assert raised.versions == {"defense": 2, "attack": 2}


@pytest.mark.parametrize("group", [*COMPONENTS, *OPTIONAL])
def test_notes_of_every_shipped_component_are_sound(group: str) -> None:
    for path in (conf_dir() / group).glob("*.yaml"):
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert version_of(node) >= 1
        assert set(counted_options(node)) <= set(node)
