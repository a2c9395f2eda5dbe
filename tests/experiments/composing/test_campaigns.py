"""What groups the cells of a command, and what tells them apart, whatever they are run on."""

from types import SimpleNamespace
from typing import Any

import pytest
from made_records import make_cell, make_record

from experiments.composing.campaigns import of_cells, of_run
from experiments.trials.campaign import Campaign, campaign_of, spoken, title_of
from smd_research.records import Store, read


def job(mode: str = "MULTIRUN", **params: str) -> Any:
    return SimpleNamespace(mode=SimpleNamespace(name=mode), sweeper=SimpleNamespace(params=params))


def test_a_sweep_is_one_campaign_wherever_it_runs() -> None:
    words = ["-m", "defense=dp_text", "defense.survival=0.1,0.3", "seed=range(3)"]
    campaign = of_run(job(), words)
    assert campaign is not None
    assert campaign.varied == ("defense.survival", "seed")
    moved = ["seed=range(3)", "results_dir=/there", "logger=wandb", "logger.mode=online", "threads=1,2", *words[:3]]
    again = of_run(job(), [*moved, "hydra/launcher=joblib", "rerun=always", "record_texts=false"])
    assert again is not None
    assert again.group.partition("(")[2] == campaign.group.partition("(")[2]
    assert again.varied == ("seed", "defense.survival")
    other = of_run(job(), [*words, "n_prompts=3"])
    assert other is not None
    assert other.group != campaign.group
    assert of_run(job("RUN"), words) is None


def test_an_experiment_sweeps_too() -> None:
    campaign = of_run(job(defense="smd,po", attack="x,y"), ["experiment=demo", "attack=random"])
    assert campaign is not None
    assert campaign.varied == ("defense",)


def test_a_table_names_its_size_and_what_its_cells_differ_in() -> None:
    cells = [["defense=split", "defense.layer=0", "n_prompts=2"], ["defense=split", "defense.layer=1", "n_prompts=2"]]
    assert of_cells("table cut small", [], cells) == Campaign("table cut small", ("defense.layer",))
    tried = of_cells("table cut small", ["n_prompts=2", "results_dir=x"], [*cells, ["defense=none", "n_prompts=2"]])
    assert tried.varied == ("defense", "defense.layer")
    assert tried.group.startswith("table cut small (")
    assert of_cells("table cut full", ["results_dir=x", "rerun=never"], cells).group == "table cut full"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("attack", "attack=partial_attention_inversion"),
        ("attack.steps", "attack.steps=32"),
        ("attack.nothing", ""),
        ("seed", "seed=0"),
        ("prompt_tokens", "prompt_tokens=16"),
        ("data.path", "data=jsonl-notes"),
        ("data.rows.first", "data.rows.first=[1,2]"),
        ("results_dir", ""),
        ("task.train", ""),
        ("command", ""),
    ],
)
def test_a_key_is_spoken_as_it_is_written(key: str, said: str) -> None:
    data = {"name": "jsonl-notes", "path": "/there/notes.jsonl", "sha256": "0a", "rows": {"first": [1, 2]}}
    assert spoken(make_cell(data=data), key) == said


def test_a_record_keeps_its_campaign(tmp_path: Any) -> None:
    record = make_record(make_cell(command="smd run attack.steps=32 seed=0 defense=smd device=cpu"))
    assert title_of(record) == f"{record.cell.readable} attack.steps=32"
    noted = read(Store(tmp_path).write(Campaign("table x small", ("attack", "seed")).noted(record)).path)  # type: ignore[arg-type]
    assert campaign_of(noted) == Campaign("table x small", ("attack", "seed"))
    assert title_of(noted) == "smd attack=partial_attention_inversion seed=0"


@pytest.mark.parametrize("command", ["", "smd run 'odd", "nothing"])
def test_an_odd_command_makes_a_plain_title(command: str) -> None:
    record = make_record(make_cell(command=command))
    assert title_of(record) == record.cell.readable
