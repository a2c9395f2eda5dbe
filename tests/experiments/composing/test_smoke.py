"""``experiment=smoke`` brings any command down to seconds, whoever set the sizes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from experiments.commands import bench, run, table, train
from experiments.composing.app import VERSION_BASE
from experiments.composing.cells import composed
from experiments.composing.overrides import groups
from experiments.composing.smoke import bring_down
from smd_research.core.paths import conf_dir
from smd_research.records import load

DEFENSES = groups(conf_dir())["defense"]
TUNED = ["task=note_type", "attack=combined"]


@pytest.fixture
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        yield
    GlobalHydra.instance().clear()


def test_a_size_comes_down_to_its_ceiling_and_nothing_else_changes() -> None:
    before = OmegaConf.create(
        {
            "few": 1,
            "many": 9,
            "all": None,
            "rates": [1, 2, 3],
            "word": "full",
            "absent": None,
            "other": 7,
            "part": {"steps": 100, "name": "x"},
            "smoke": {
                "few": 2, "many": 2, "all": 2, "rates": 2, "word": "small", "gone": 1,
                "absent": {"steps": 1}, "part": {"steps": 3, "gone": 1},
            },
        }
    )  # fmt: skip
    after: Any = OmegaConf.to_container(bring_down(before))
    assert after == {
        "few": 1,
        "many": 2,
        "all": 2,
        "rates": [1, 2],
        "word": "small",
        "absent": None,
        "other": 7,
        "part": {"steps": 3, "name": "x"},
    }
    assert before.many == 9
    assert bring_down(OmegaConf.create({"many": 9})) == {"many": 9}


@pytest.mark.usefixtures("hydra")
def test_it_wins_over_every_other_word_and_leaves_small_ones() -> None:
    words = ["defense=shaking", "defense.awareness_steps=300", "tuning.steps=1", "task.train=2000", "task=note_type"]
    plan = composed([*words, "experiment=smoke"])
    assert plan.cell.task
    assert plan.cell.tuning
    assert (plan.cell.defense["awareness_steps"], plan.cell.tuning["steps"], plan.cell.task["train"]) == (1, 1, 16)
    assert plan.results_dir == Path("results/smoke")
    assert composed(["experiment=smoke", "n_prompts=20", "prompt_tokens=null"]).cell.prompt_tokens == 8


@pytest.mark.usefixtures("hydra")
def test_each_ceiling_is_of_something_that_there_is() -> None:
    ceilings: Any = OmegaConf.to_container(compose("config", overrides=["experiment=smoke"]).smoke)
    for group in ("defense", "attack", "task", "tuning"):
        known = set()
        for option in groups(conf_dir())[group]:
            words = [f"{group}={option}", *(["task=note_type"] if group == "tuning" else [])]
            known |= set(compose("config", overrides=words)[group])
        assert set(ceilings[group]) <= known
    commands = {key for name in ("config", "bench", "train") for key in compose(name)}
    assert set(ceilings) <= {*commands, "task"}


@pytest.mark.usefixtures("hydra")
@pytest.mark.parametrize("name", ["config", "bench", "train", "serve", "table"])
def test_every_command_composes(name: str) -> None:
    assert "smoke" not in bring_down(compose(name, overrides=["experiment=smoke"]))


@pytest.mark.usefixtures("hydra")
def test_training_never_writes_over_the_model_that_ships() -> None:
    cfg = bring_down(compose("train", overrides=["experiment=smoke", "results_dir=elsewhere"]))
    assert (cfg.out_dir, cfg.work_dir) == ("elsewhere/models/smoke", "elsewhere/train")
    assert cfg.steps % cfg.epoch_steps == 0


@pytest.mark.parametrize("defense", DEFENSES)
def test_every_defense_runs(defense: str, tmp_path: Path) -> None:
    words = [f"defense={defense}", "experiment=smoke", f"results_dir={tmp_path}"]
    assert run.main([*words, *(TUNED if defense in ("shaking", "sentinel") else ["attack=prior"])]) == 0
    assert load(tmp_path)["status"].unique().tolist() == ["ok"]


def test_a_sweep_runs(tmp_path: Path) -> None:
    assert run.main(["-m", "defense=none,split", "attack=random", "experiment=smoke", f"results_dir={tmp_path}"]) == 0
    assert set(load(tmp_path)["n_prompts"]) == {1}


@pytest.mark.parametrize("name", ["attacks_vs_defenses", "shaking_phases"])
@pytest.mark.slow
def test_a_table_runs_at_the_size_of_smoke(name: str, tmp_path: Path) -> None:
    words = [f"table={name}", "experiment=smoke", f"results_dir={tmp_path}", "transport=inproc"]
    assert table.main(words) == 0
    found = load(tmp_path)
    assert set(found["n_prompts"]) <= {1, 8}
    assert (tmp_path / "tables" / f"{name}.md").exists()


def test_the_shortest_table_runs(tmp_path: Path) -> None:
    assert table.main(["table=inversion", "experiment=smoke", f"results_dir={tmp_path}"]) == 0
    found = load(tmp_path)
    assert len(found["id"].unique()) == 3
    assert set(found["n_prompts"]) == {1}
    assert (tmp_path / "tables" / "inversion.md").exists()


@pytest.mark.slow
def test_a_bench_and_a_training_run(tmp_path: Path) -> None:
    words = ["experiment=smoke", f"results_dir={tmp_path}"]
    assert bench.main(["bench=transport_roundtrip", *words]) == 0
    assert train.main([*words, "precision=32-true", "accelerator=cpu"]) == 0
    assert (tmp_path / "models" / "smoke" / "model.safetensors").exists()
