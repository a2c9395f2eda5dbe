"""A sweep that stays in this process runs the cells that Hydra would run, in the same words."""

from pathlib import Path

import pytest

from experiments.commands.cli import main as smd
from experiments.composing import sweeps
from experiments.trials.plan import Plan
from experiments.trials.running import Runner


def told(plan: Plan) -> tuple[object, ...]:
    there = plan.beside(["attack=prior"]).cell
    return plan.cell, plan.cell.command, there, plan.campaign, plan.results_dir, plan.rerun, plan.threads, plan.logger


@pytest.fixture
def planned(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What is asked of the runner, which runs nothing."""
    asked: list[tuple[object, ...]] = []

    def note(_: Runner, plan: Plan) -> tuple[None, bool]:
        asked.append(told(plan))
        return None, False

    monkeypatch.setattr(Runner, "run", note)
    monkeypatch.setattr("experiments.commands.sweep.finish", lambda *_: 0)  # which would miss the records
    return asked


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "defense=none,split", "attack=random,prior", "seed=range(2)", "n_prompts=3", "rerun=missing"],
        ["-m", "seed=1"],
        ["-m", "defense=none,po", "experiment=smoke", "results_dir=results/here"],
        ["experiment=confidential_prompting", "attack=random", "seed=4"],
        ["defense=dp_text", "--multirun", "defense.survival=0.1,0.5", "attack=bayes_token", "-cd", "FOLDER"],
        ["-m", "attack=mine", "seed=0,1", "--config-dir", "FOLDER"],
    ],
    ids=" ".join,
)
def test_the_cells_are_those_of_hydra_in_the_same_words(
    words: list[str],
    planned: list[tuple[object, ...]],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path_factory.mktemp("conf")
    (folder / "attack").mkdir()
    (folder / "attack" / "mine.yaml").write_text("# Mine.\n_target_: attacks.baselines.random.Random\n")
    words = [str(folder) if word == "FOLDER" else word for word in words]
    assert smd(["run", *words]) == 0
    here, said = list(planned), capsys.readouterr().err
    assert not Path("results/sweep").exists(), "Hydra had nothing to do"
    planned.clear()
    monkeypatch.setattr(sweeps, "_stays_here", lambda *_: False)
    assert smd(["run", *words]) == 0
    assert here == planned
    assert len(here) >= 1
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "defense=none", "hydra.sweep.dir=results/elsewhere"],
        ["-m", "experiment=edge_device", "seed=0,1"],
        ["-m", "defense=none", "hydra/launcher=basic"],
    ],
    ids=" ".join,
)
def test_what_is_asked_of_hydra_is_left_to_it(
    words: list[str], planned: list[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[bool] = []
    stays = sweeps._stays_here
    monkeypatch.setattr(sweeps, "_stays_here", lambda *given: found.append(stays(*given)) or found[-1])
    assert smd(["run", *words]) == 0
    assert found == [False]
    assert planned
