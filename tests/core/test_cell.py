import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_research.core.cell import COMPONENTS, Cell, component_name, parameters, without_home
from smd_research.core.errors import ConfigError


def make(**changes: Any) -> Cell:
    values: dict[str, Any] = {
        "model": {"name": "embedded"},
        "data": {"name": "synthetic"},
        "defense": {"_target_": "smd_research.defenses.dp.DPText", "name": "dp_text", "epsilon": 8.0},
        "attack": {"name": "bayes_token", "beam": 4},
        "dtype": "float32",  # as it was called when these ids were written down
    }
    return Cell(**(values | changes))


GOLDEN = {
    "plain": (make(), "67fcc9bfe6e95b0d"),
    "no attack": (make(attack={"name": "none"}), "0c6058110291d2c9"),
    "other seed": (make(seed=3), "41442d7eafc37a11"),
    "cut prompts": (make(prompt_tokens=16, max_new_tokens=32, n_prompts=20), "8d6f3b686d131d1b"),
}

OTHER = {
    "model": {"name": "local", "path": "somewhere"},
    "data": {"name": "jsonl"},
    "defense": {"name": "smd"},
    "attack": {"name": "prior"},
    "link": {"name": "wan"},
    "n_prompts": 7,
    "max_new_tokens": 9,
    "prompt_tokens": 5,
    "held_out": 12,
    "seed": 4,
    "dtype": "bfloat16",
    "wire_dtype": "fp16",
    "transport": "process",
    "versions": {"attack": 2},
    "task": {"name": "note_type"},
    "tuning": {"name": "lora"},
    "device": "cuda:0",
    "command": "python -m experiments.commands.run",
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Cell)])
def test_every_field_is_classified_and_acts_so(name: str) -> None:
    field = next(field for field in dataclasses.fields(Cell) if field.name == name)
    assert field.metadata["role"] in ("identity", "runtime")
    changed = make(**{name: OTHER[name]})
    assert (changed.id != make().id) is (field.metadata["role"] == "identity")


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_ids(name: str) -> None:
    """An id that moves orphans every record on disk: raise ID_VERSION on purpose, never by accident."""
    cell, expected = GOLDEN[name]
    assert cell.id == expected


def test_a_task_is_part_of_the_identity_only_where_there_is_one() -> None:
    """Ids of cells without a task, which the golden ones pin, are what they were before there were tasks."""
    tuned = make(task={"name": "note_type", "train": 100}, tuning={"name": "full", "steps": 3})
    assert "task" not in make().identity()
    assert tuned.identity()["task"] == {"name": "note_type", "parameters": {"train": 100}}
    assert tuned.id != make(task={"name": "note_type", "train": 50}, tuning={"name": "full", "steps": 3}).id
    assert tuned.readable == "dp_text-bayes_token-embedded-note_type-s0"
    assert Cell.from_dict(tuned.to_dict()).id == tuned.id


def test_readable_name_says_what_was_run() -> None:
    assert make().readable == "dp_text-bayes_token-embedded-synthetic-s0"
    assert make(model={"name": "openai/gpt-2 xl"}).readable == "dp_text-bayes_token-openai_gpt_2_xl-synthetic-s0"
    assert make(model={"name": "../../etc"}).readable.split("-")[2] == "_.._etc"


def test_a_component_without_a_name_is_called_by_its_target() -> None:
    assert component_name({"_target_": "attacks.baselines.prior.Prior"}) == "Prior"
    assert component_name({}) == "none"


def test_moving_a_class_keeps_the_id_and_raising_its_version_does_not() -> None:
    moved = make(defense={"_target_": "elsewhere.DPText", "name": "dp_text", "epsilon": 8.0})
    assert moved.id == make().id
    assert make(versions={"defense": 2}).id != make(versions={"defense": 1}).id


def test_equal_numbers_are_one_cell() -> None:
    assert make(defense={"name": "dp_text", "epsilon": 8}).id == make().id
    assert make(defense={"name": "dp_text", "epsilon": 8.5}).id != make().id


def test_runtime_options_of_a_component_do_not_count() -> None:
    assert make(attack={"name": "bayes_token", "beam": 4, "device": "cuda", "progress": False}).id == make().id


def test_a_file_with_a_checksum_may_move() -> None:
    assert parameters({"name": "jsonl", "path": "a", "sha256": "1"}) == {"sha256": "1"}
    assert parameters({"name": "jsonl", "path": "a"}) == {"path": "a"}
    assert parameters({"train_path": "a", "evaluation_path": "b", "sha256": "1"}) == {"sha256": "1"}


def test_the_home_folder_is_never_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    cell = make(model={"name": "local", "path": Path("/home/ann/models/x")}, command="smd run model.path=/home/ann/m")
    assert cell.model["path"] == "~/models/x"
    assert cell.command == "smd run model.path=~/m"
    assert without_home("no file /home/ann") == "no file ~"
    assert without_home("/home/anna /mnt/home/ann/x") == "/home/anna /mnt/home/ann/x"


def test_configuration_is_reduced_to_plain_values() -> None:
    class Kind(StrEnum):
        A = "a"

    cell = make(attack={"name": "x", "kind": Kind.A, "layers": (1, 2), "set": {2, 1}})
    assert cell.attack == {"name": "x", "kind": "a", "layers": [1, 2], "set": [1, 2]}
    assert type(cell.attack["kind"]) is str


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), object(), b"x"])
def test_values_without_one_spelling_are_refused_by_place(bad: Any) -> None:
    with pytest.raises(ConfigError, match=r"attack\.x"):
        make(attack={"name": "a", "x": bad})


def test_a_dictionary_without_its_parts_is_refused() -> None:
    with pytest.raises(ConfigError, match="defense"):
        Cell.from_dict({"model": {}, "data": {}})


def test_a_cell_can_be_a_key() -> None:
    assert len({make(), make(), make(seed=1)}) == 2


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(part=st.sampled_from(COMPONENTS), options=st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_round_trip_keeps_cell_and_id(part: str, options: dict[str, Any]) -> None:
    cell = make(**{part: options})
    again = Cell.from_dict(cell.to_dict())
    assert again == cell
    assert again.id == cell.id


@settings(max_examples=40, deadline=None)
@given(options=st.dictionaries(st.text(max_size=8), JSON, max_size=6), seed=st.randoms())
def test_order_of_options_does_not_count(options: dict[str, Any], seed: Any) -> None:
    shuffled = list(options.items())
    seed.shuffle(shuffled)
    assert make(attack=dict(shuffled)).id == make(attack=options).id
