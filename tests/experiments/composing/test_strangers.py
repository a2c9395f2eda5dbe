"""Words of a stranger's command: taken where they choose one of the lab's own options or set a plain value."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from made_records import make_cell, make_record
from omegaconf import DictConfig

from experiments.composing.app import launch
from experiments.composing.cells import composed
from experiments.composing.strangers import NotRunError, OtherCellError, plan_of
from smd_research.core.cell import Cell
from smd_research.records import Record

WORDS = ["defense=smd", "attack=prior", "n_prompts=2", "prompt_tokens=6"]


def told(words: Sequence[str]) -> Record:
    """A record whose command has some words."""
    return make_record(make_cell(command=" ".join(["smd run", *words])))


def inside(cell: Cell | None, words: Sequence[str], results_dir: Path) -> str:
    """What becomes of a command: the id of the plan's cell, or the reason why there is none."""
    said: list[str] = []

    def one(cfg: DictConfig) -> None:
        known = cell or composed(WORDS).cell
        try:
            plan = plan_of(make_record(replace(known, command=" ".join(["smd run", *words]))), results_dir)
        except (NotRunError, OtherCellError) as error:
            said.append(f"{type(error).__name__}: {error}")
            return
        for there in (plan, plan.beside(["seed=7"])):
            assert (there.results_dir, there.address, there.logger["name"]) == (results_dir, None, "none")
        said.append("same" if plan.cell.id == known.id else plan.cell.id)

    assert launch(one, "verify", "smd verify", []) == 0
    return said[0]


def test_the_lab_s_own_words_make_the_cell_again(tmp_path: Path) -> None:
    assert inside(None, WORDS, tmp_path) == "same"
    assert inside(None, [*WORDS, "threads=1"], tmp_path) == "same"


@pytest.mark.parametrize(
    "word",
    [
        "defense._target_=os.system",
        "+defense._target_=os.system",
        "'defense={_target_: os.system}'",
        "'defense={_target_: os.system, command: id}'",
        "'defense.audit={_target_: os.system}'",
        "'model=[hub]'",
        "'defense.note=${oc.env:HOME}'",
        "hydra.run.dir=/",
        "hydra/launcher=joblib",
        "'hydra.searchpath=[file:///evil]'",
        "logger=wandb",
        "address=evil.example:7000",
        "results_dir=/etc",
        "trainer.accelerator=gpu",
        "~defense",
        "-cd=/evil",
        "--config-dir=/evil",
        "-m",
        "defense@attack=smd",
        "cells=[a]",
    ],
)
def test_words_that_build_resolve_or_send_are_refused_before_anything_is_composed(word: str, tmp_path: Path) -> None:
    with pytest.raises(NotRunError, match=r"is not taken from elsewhere$"):
        plan_of(told([*WORDS, word]), tmp_path)


@pytest.mark.parametrize(
    "word",
    [
        "model=hub",
        "model=local",
        "model=gguf",
        "data=hub",
        "data.path=notes.jsonl",
        "task.train_path=x",
        "defense.key_file=x",
        "defense.vectors_path=x",
        "defense.bank_folder=x",
        "attack.model=x",
        "attack.relative=x",
        "task.dataset=evil/set",
    ],
)
def test_what_does_not_come_with_the_lab_is_not_read(word: str, tmp_path: Path) -> None:
    with pytest.raises(NotRunError, match=r"names what does not come with the laboratory$"):
        plan_of(told([*WORDS, word]), tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["defense=mine"], "unknown defense 'mine'"),
        ([*WORDS, "n_prompts=0"], "n_prompts=0"),
        ([*WORDS, "defense.unknown=1"], "unknown"),
        ([*WORDS, "defense.version=7"], "defense.version is no option"),
        ([*WORDS, "seed=0,1"], "this laboratory does not take its command"),
        ([*WORDS, "'"], "its command is none"),
    ],
    ids=str,
)
def test_what_the_lab_does_not_take_is_not_run(words: list[str], said: str, tmp_path: Path) -> None:
    assert said in inside(None, words, tmp_path)


def test_another_cell_and_another_version_are_told_apart(tmp_path: Path) -> None:
    assert inside(None, [*WORDS, "seed=1"], tmp_path).startswith("OtherCellError: its command makes cell ")
    older = Cell(
        model={"name": "embedded"}, data={"name": "synthetic"}, defense={"name": "smd"}, versions={"defense": 99}
    )
    assert inside(older, WORDS, tmp_path).startswith("NotRunError: made by versions {'defense': 99}")


@pytest.mark.parametrize("command", ["", "rm -rf x", "smd table table=x", "smd"])
def test_another_command_is_none(command: str, tmp_path: Path) -> None:
    with pytest.raises(NotRunError, match="its command is none"):
        plan_of(make_record(make_cell(command=command)), tmp_path)
