"""Cells with a task from the command line: two parties tune and infer, an attack reads what crossed, a record stays."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests_support import numbers

from experiments.commands.cli import main as smd
from experiments.trials import tuning, workbench
from smd_research.data.tasks.rows import texts_of
from smd_research.data.tasks.synthetic import Urgency
from smd_research.mechanisms.privacy.channels import bundle_space
from smd_research.mechanisms.privacy.token_channel import ExponentialChannel
from smd_research.metrics import CARDS
from smd_research.models import sources
from smd_research.records import load

SMALL = ["model=random", "task.train=16", "task.validation=4", "task.evaluation=8", "task.tokens=12"]
SMALL += ["tuning.steps=6", "tuning.batch=4", "tuning.checks=2"]
KEYED = ["defense=shaking", *(f"defense.{operator}=0" for operator in ("inflate", "tilt", "gaussian"))]
KEYED += ["defense.awareness_steps=0", "defense.function_steps=0"]

ATTACKS = """
import numpy as np
from attacks.base import MappingAttack
from smd_research.core.guess import MappingGuess


class SortsRows(MappingAttack):
    def solve(self, views, rng, known=None):
        shaken, public = (one.embedding.numpy() for one in (self.public.before, self.public.base))
        mapping = np.empty(len(shaken), dtype=np.int64)
        mapping[np.lexsort(shaken.T)] = np.lexsort(public.T)
        return MappingGuess(mapping, certified=True)


class Told(MappingAttack):
    known = 40

    def solve(self, views, rng, known=None):
        mapping = np.full(self.ciphers, -1)
        mapping[known.cipher] = known.plain
        return MappingGuess(mapping)
"""


@pytest.fixture(autouse=True)
def _little_public_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Public text takes longer to generate than all else here."""
    monkeypatch.setattr(tuning, "PUBLIC_TEXTS", 10)
    monkeypatch.setattr(workbench, "AUXILIARY_DOCUMENTS", 100)


@pytest.fixture
def attacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two attacks of somebody's own: one that undoes a permutation, one that knows what it is told."""
    (tmp_path / "conf" / "attack").mkdir(parents=True)
    for name, kind in (("sorts", "SortsRows"), ("told", "Told")):
        (tmp_path / "conf" / "attack" / f"{name}.yaml").write_text(f"# Mine.\n_target_: attacks_of_mine.{kind}\n")
    (tmp_path / "attacks_of_mine.py").write_text(ATTACKS)
    monkeypatch.chdir(tmp_path)
    return ["-cd", "conf"]


def metrics(results_dir: str = "results") -> dict[str, dict[str, float]]:
    frame = load(results_dir)
    return {
        f"{row['defense']} {row['attack']}": dict(part[["metric", "mean"]].itertuples(index=False))
        for (row), part in ((part.iloc[0], part) for _, part in frame.groupby("id"))
    }


def test_a_tuned_cell_leaves_a_record_and_is_known_afterwards(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "task=urgency", "defense=none", "attack=none", *SMALL]
    assert smd(command) == 0
    (folder,) = Path("results/cells").iterdir()
    assert folder.name.startswith("none-none-random_llama-urgency-s0-")
    document = json.loads((folder / "metrics.json").read_text())
    found = document["metrics"]
    assert set(found) <= set(CARDS)
    assert {"accuracy", "f1_macro", "tune_s", "tune_bytes", "tune_gflop", "infer_s", "infer_bytes"} <= set(found)
    assert found["accuracy"]["n"] == document["cell"]["n_prompts"] == 8
    sent = 4 * (16 + 4) * (12 + 2)  # ids, lengths and labels of every text, int32
    assert found["tune_bytes"]["mean"] == sent
    assert len(pd.read_parquet(folder / "items.parquet")) == 8
    capsys.readouterr()
    assert smd(command) == 0
    assert "(known)" in capsys.readouterr().err


def test_a_permuted_model_tunes_as_the_plain_one_and_its_attacks_share_one_life(
    attacks: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lives = []
    real = tuning.TuningDeployment

    def counting(*given: Any) -> tuning.TuningDeployment:
        lives.append(1)
        return real(*given)

    monkeypatch.setattr(tuning, "TuningDeployment", counting)
    assert smd(["run", "task=urgency", "defense=none", "attack=none", *SMALL]) == 0
    assert (
        smd(["run", *attacks, "-m", "task=urgency", *KEYED, "attack=none,sorts,told,attribute_probe,reading", *SMALL])
        == 0
    )
    assert len(lives) == 2
    found = metrics()
    assert found["shaking none"]["accuracy"] == found["none none"]["accuracy"]
    assert found["shaking sorts"]["id_recovery"] == found["shaking sorts"]["token_recovery"] == 1
    assert found["shaking sorts"]["certified"] == 1
    assert 0.2 < found["shaking told"]["token_recovery"] < 0.95
    assert found["shaking told"]["id_recovery"] < 0.02
    assert found["shaking attribute_probe"]["attribute_chance"] >= 0.5
    assert 0 <= found["shaking attribute_probe"]["attribute_accuracy"] <= 1
    shown = capsys.readouterr().out
    assert "reading against shaking: needs token ids" in shown
    assert "Private text recovered, by defense and attack" in shown
    assert CARDS["accuracy"].label in shown


def test_known_pairs_are_told_where_prompts_are_served_too(attacks: list[str]) -> None:
    small = ["model=random", "n_prompts=2", "prompt_tokens=8", "max_new_tokens=2"]
    assert smd(["run", *attacks, *KEYED, "attack=told", *small]) == 0
    assert 0.1 < metrics()["shaking told"]["token_accuracy"] < 1


def test_the_true_mapping_reads_only_what_fresh_noise_left(attacks: list[str]) -> None:
    """The substitution is undone whole, and still the private text is read as far as its tokens survived."""
    options = [*KEYED, "defense.fresh_epsilon=12"]
    assert smd(["run", *attacks, "task=urgency", *options, "attack=sorts", *SMALL]) == 0
    found, bundle = metrics()["shaking sorts"], sources.random("llama")
    task = Urgency(train=16, validation=4, evaluation=8, tokens=12)
    texts = [*task.examples("train", 16, 0), *task.examples("validation", 4, 0)]
    ids = [token for text in texts_of(texts, task, bundle).ids for token in text]
    words = ExponentialChannel(bundle_space(bundle), 12)
    survives = words.survival([i for i in ids if i not in bundle.special_ids])
    spread = 5 * float(np.sqrt((survives * (1 - survives)).sum())) / len(survives)
    assert found["id_recovery"] == 1
    assert found["token_recovery"] == pytest.approx(survives.mean(), abs=spread)
    assert 0.1 < survives.mean() - spread < survives.mean() + spread < 0.9, "so that the test can fail"
    (folder,) = Path("results/cells").iterdir()
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["guarantee"].startswith("metric-DP: epsilon=12 per token")
    assert environment["parameters"]["fresh_epsilon"] == 12


def test_sanitised_text_is_tuned_on_and_attacked_in_one_cell(in_folder: Path) -> None:
    """What the client paid in accuracy stands beside what the attack read of the same texts; chance beside it."""
    command = ["run", "task=urgency", *SMALL, "attack=bayes_token", "attack.mode=bayes", "defense=dp_text"]
    assert smd([*command, "defense.epsilon=5", "results_dir=results/strong"]) == 0
    assert smd([*command, "defense.epsilon=17", "results_dir=results/weak"]) == 0
    strong, weak = (metrics(f"results/{folder}")["dp_text bayes_token"] for folder in ("strong", "weak"))
    assert weak["token_recovery"] > 0.85
    assert strong["token_recovery"] < 0.5
    assert strong["control_token_recovery"] == weak["control_token_recovery"] < 0.5
    assert {"accuracy", "f1_macro", "attack_s", "attack_candidates"} <= set(strong)
    assert set(strong) <= set(CARDS)


def test_an_attack_on_prompts_reads_the_rows_of_an_upload(in_folder: Path) -> None:
    command = ["run", "-m", "task=urgency", "defense=none", *SMALL]
    assert smd([*command, "attack=reading,random,prior"]) == 0
    found = metrics()
    assert found["none reading"]["token_recovery"] == 1
    assert found["none random"]["token_recovery"] < 0.1
    assert found["none prior"]["token_recovery"] < 0.5


def test_dp_sgd_leaves_what_it_spent_and_what_is_promised(in_folder: Path) -> None:
    pytest.importorskip("opacus", reason="opacus is not installed: pip install 'smd-research[dp]'")
    command = ["run", "task=urgency", "defense=none", "attack=none", "tuning=dp_sgd", "tuning.label_epsilon=2", *SMALL]
    assert smd([*command, "tuning.epsilon=100"]) == 0
    found = metrics()["none none"]
    assert 90 < found["tune_epsilon"] <= 100
    assert found["tune_rate"] == 4 / 16
    assert found["tune_delta"] == pytest.approx(16**-1.1)
    assert found["tune_noise"] > 0
    assert set(found) <= set(CARDS)
    (folder,) = Path("results/cells").iterdir()
    guarantee = json.loads((folder / "environment.json").read_text())["guarantee"]
    assert guarantee.startswith("local DP of labels: epsilon=2 per label")
    assert " | DP of training: epsilon=" in guarantee


def test_a_promise_that_these_texts_cannot_have_is_refused_before_anything_is_trained(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("opacus", reason="opacus is not installed: pip install 'smd-research[dp]'")
    for words, reason in (
        (["task=urgency", "tuning=dp_sgd", "tuning.batch=17"], "tuning.batch=17: DP-SGD samples that many of 16"),
        (["task=next_token", "tuning=full", "tuning.label_epsilon=1"], "randomised response of labels hides"),
    ):
        assert smd(["run", "defense=none", "attack=none", *SMALL, *words]) == 1
        assert reason in capsys.readouterr().err


def test_what_does_not_go_together_is_not_applicable(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, reason in (
        (["defense=smd", "attack=none"], "nothing can be tuned under smd"),
        (["defense=none", "attack=vocab_matching"], "needs hidden states"),
        (["defense=dp_text", "attack=table_matching"], "needs"),
    ):
        assert smd(["run", "task=urgency", *words, *SMALL]) == 1
        assert reason in capsys.readouterr().err


class Killed(BaseException):
    """Stands for a kill."""


@contextmanager
def killed(label: str) -> Iterator[Callable[[int, int], None]]:
    """Stands for the progress bar: somebody kills the command at the fifth step."""

    def on_step(step: int, steps: int) -> None:
        if step == 5:
            raise Killed

    yield on_step


@pytest.mark.parametrize("defense", [["defense=none"], [*KEYED, "defense.fresh_epsilon=12"]], ids=["none", "fresh"])
def test_a_cell_that_was_killed_goes_on_with_equal_results(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch, defense: list[str]
) -> None:
    command = ["run", "task=urgency", "tuning=lora", *defense, "attack=none", *SMALL]
    assert smd([*command, "results_dir=results/a"]) == 0
    with monkeypatch.context() as patched:
        patched.setattr(tuning, "steps", killed)
        with pytest.raises(Killed):
            smd([*command, "results_dir=results/b"])
    assert list(Path("results/b/work").rglob("last.ckpt"))
    assert smd([*command, "results_dir=results/b"]) == 0
    pd.testing.assert_frame_equal(numbers(Path("results/a")), numbers(Path("results/b")))
    assert not list(Path("results/b/work").rglob("*.ckpt"))


def test_the_next_token_is_a_task_too(in_folder: Path) -> None:
    assert smd(["run", "task=next_token", "defense=none", "attack=none", *SMALL]) == 0
    found = metrics()["none none"]
    assert found["perplexity"] > 1
    assert 0 <= found["accuracy"] <= 1


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["task=file", "task.train_path=/no/such.csv"], 1, "/no/such.csv does not exist"),
        (["task=urgency", "tuning.checks=7"], 2, "tuning.checks=7: give a whole number, 1 to 6 (steps)"),
        (["task=urgency", "task.validation=0"], 2, "task.validation=0"),
        (["task=urgency", "transport=tcp", "address=localhost:1"], 2, "address given needs task=null"),
    ],
)
def test_bad_input_is_one_clear_line(
    in_folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    assert smd(["run", "defense=none", "attack=none", *SMALL, *words]) == code
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert says in line
