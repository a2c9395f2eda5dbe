"""Cells and sweeps from the command line, on the shipped model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tests_support import numbers

from experiments.commands.cli import main as smd
from experiments.trials.seen import Seen
from smd_research.defenses.base import Prepared
from smd_research.metrics import CARDS
from smd_research.records import load, read


def folders(results_dir: str = "results") -> list[Path]:
    return sorted((Path(results_dir) / "cells").iterdir())


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, lines
    return lines[0]


# Metrics that only some attacks give (checked, of a choice, active, of a stream, of weights), or only some defenses
# (Prompt Obfuscation, weight decomposition), or only tuning on a task.
OF_SOME = (
    *(
        "certified",
        *("claim", "measured_epsilon", "measurable_epsilon", "support_differs", "audited", "canary", "channel_error"),
        "inverter_accuracy",
        "readable",
        "row_space",
        "deduction",
        "peeling",
        "pursuit",
        "left_to_right",
        "id_chance",
        "control_token_recovery",
        "choice",
        "control_choice",
        "refused",
        "stream",
        "real_stream",
        "requests_needed",
    ),
    *("found_", "max_posterior_", "eps_eff", "nominal_bound", "widened_epsilon", "sampling_ms"),
    *("original_", "exposed_", "restored_", "scratch_", "public_", "rec_", "private_gain", "weight_error"),
    *("trainable_", "attack_tokens", "attack_steps", "learning_rate", "validation_loss"),
    *("hidden_", "increase_per_parameter", "secret_", "trusted_flops", "attention_flops", "protocol_flops"),
    *("output_changed", "rows_sharing_masks", "signal_share", "head_overlap", "pairs_", "plain_pairs", "width_found"),
    *("tampered_replies", "comparisons_read", "logit_vectors", "offline_", "masks_mb", "bank_mb"),
    *("accuracy", "f1_macro", "attribute_", "token_recovery", "id_recovery", "key_", "implant_", "tune_", "infer_"),
)


def test_a_cell_leaves_one_folder_as_promised(in_folder: Path, small: list[str]) -> None:
    assert smd(["run", "defense=smd", "attack=prior", "link=wan", *small]) == 0
    (folder,) = folders()
    assert folder.name.startswith("smd-prior-embedded-")
    assert {file.name for file in folder.iterdir()} == {
        "config.yaml",
        "metrics.json",
        "items.parquet",
        "environment.json",
    }
    document = json.loads((folder / "metrics.json").read_text())
    assert (document["status"], document["reason"]) == ("ok", "")
    assert document["cell"]["id"] == folder.name.rpartition("-")[2]
    assert {name for name in CARDS if not name.startswith(OF_SOME)} <= set(document["metrics"])
    assert all(set(value) == {"mean", "low", "high", "n"} for value in document["metrics"].values())
    assert document["metrics"]["logit_error"]["mean"] < 1e-5
    assert len(pd.read_parquet(folder / "items.parquet")) == 3
    assert yaml.safe_load((folder / "config.yaml").read_text())["max_new_tokens"] == 4


def test_a_known_cell_is_not_run_again(
    in_folder: Path, small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "defense=none", "attack=reading", *small]
    assert smd(command) == 0
    before = folders()[0].stat().st_ino

    def never(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("experiments.trials.trial.trial", never)
    assert smd(command) == 0
    assert smd([*command, "rerun=failed"]) == 0
    assert "(known)" in capsys.readouterr().err
    assert folders()[0].stat().st_ino == before
    assert smd([*command, "rerun=always"]) == 1, "rerun=always measures"


def test_rerun_never_runs_nothing(in_folder: Path, small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert smd(["run", "defense=none", "attack=none", "rerun=never", *small]) == 0
    assert "no record" in capsys.readouterr().err
    assert not Path("results").exists()


def test_an_unknown_rerun_is_refused(in_folder: Path, small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert smd(["run", "rerun=sometimes", *small]) == 2
    assert "there is always, failed, missing, never" in one_error(capsys)


def test_a_sweep_shares_what_it_sees_and_ends_with_a_table(
    in_folder: Path, small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments.trials import serving

    lived: list[str] = []
    real = serving.serve

    def counting(prepared: Prepared, *more: Any) -> Seen:
        lived.append(type(prepared).__name__)
        return real(prepared, *more)

    monkeypatch.setattr(serving, "serve", counting)
    code = smd(["run", "-m", "defense=none,split", "attack=none,random,reading,vocab_matching", *small])
    shown = capsys.readouterr()
    assert code == 0
    assert lived == ["PlainPrepared", "SplitPrepared"], "each defense is lived through once for all attacks"
    assert "[8/8]" in shown.err
    assert "Attacks against defenses" in shown.out
    assert "vocab_matching against none: needs hidden states" in shown.out
    assert "8 cells: 8 run now, 0 known before, 0 failed" in shown.out
    assert Path("results/figures/frontier.png").stat().st_size > 10_000
    best = load("results").query("metric == 'token_accuracy'").set_index(["defense", "attack"])["mean"]
    assert best["none", "reading"] == 1.0
    assert best["split", "vocab_matching"] > best["split", "random"]


def test_an_experiment_may_list_its_cells(
    in_folder: Path, small: list[str], tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path_factory.mktemp("conf")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "two.yaml").write_text(
        "# @package _global_\n# Two kinds of cells\ncells:\n"
        "  - {common: 'defense=none', sweep: ['attack=random,reading']}\n"
        "  - {common: 'defense=split', sweep: ['attack=vocab_matching']}\n"
    )
    assert smd(["run", "--config-dir", str(folder), "experiment=two", *small]) == 0
    shown = capsys.readouterr()
    assert "[3/3] split against vocab_matching" in shown.err
    assert "3 cells: 3 run now, 0 known before, 0 failed" in shown.out
    commands = {record.cell.command for record in map(read, sorted(Path("results/cells").iterdir()))}
    assert all("experiment" not in command for command in commands), "each cell has a command of its own"
    assert smd(["run", "--config-dir", str(folder), "experiment=two", "defense=nope", *small]) != 0


def test_numbers_do_not_depend_on_company_or_order(in_folder: Path, small: list[str]) -> None:
    attacks = ("random", "prior", "vocab_matching")
    assert smd(["run", "-m", "defense=split", f"attack={','.join(attacks)}", *small, "results_dir=results/a"]) == 0
    for attack in reversed(attacks):
        assert smd(["run", "defense=split", f"attack={attack}", *small, "results_dir=results/b"]) == 0
    pd.testing.assert_frame_equal(numbers(Path("results/a")), numbers(Path("results/b")))


def test_an_attack_that_does_not_fit_is_recorded_with_the_reason(
    in_folder: Path, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert smd(["run", "defense=smd", "attack=vocab_matching", *small]) == 1
    assert "is n/a: needs hidden states, which the defense does not show" in one_error(capsys)
    document = json.loads((folders()[0] / "metrics.json").read_text())
    assert document["status"] == "n/a"
    assert document["metrics"] == {}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model=local", "model.path=/no/such/model"], "no model at /no/such/model"),
        (["model=random", "model.family=lama"], "model.family=lama is unknown"),
        (["max_new_tokens=510"], "exceed the context of 512"),
        (["data.path=/no/such/file"], "/no/such/file"),
    ],
)
def test_a_cell_that_cannot_run_fails_with_one_line(
    in_folder: Path, small: list[str], capsys: pytest.CaptureFixture[str], words: Sequence[str], expected: str
) -> None:
    code = smd(["run", "defense=none", "attack=none", *small, *words])
    assert code == 1
    shown = one_error(capsys)
    assert "is failed: " in shown
    assert expected in shown
    assert json.loads((folders()[0] / "metrics.json").read_text())["status"] == "failed"


def test_an_empty_prompt_is_refused(
    in_folder: Path, small: list[str], documents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents.write_text(json.dumps({"text": "  "}))
    assert smd(["run", "defense=none", "attack=none", *small]) == 1
    assert "empty" in one_error(capsys)


def test_a_prompt_longer_than_the_context_is_refused(
    in_folder: Path, small: list[str], documents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents.write_text(json.dumps({"text": "The letter went on and on. " * 200}))
    assert smd(["run", "defense=none", "attack=none", *small, "prompt_tokens=null"]) == 1
    assert "context is 512" in one_error(capsys)


def test_a_failed_cell_is_run_again(
    in_folder: Path, small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "-m", "defense=none", "attack=random,reading", *small]

    def broken(plan: object, *_: object) -> None:
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patched:
        patched.setattr("experiments.trials.trial.trial", broken)
        assert smd(command) == 1
    assert "RuntimeError: out of luck" in capsys.readouterr().out
    assert smd([*command, "rerun=missing"]) == 1, "known failures are kept on request"
    shown = capsys.readouterr()
    assert "(known)" in shown.err
    assert "Run the failed ones again: smd run -m" in shown.out
    assert smd(command) == 0
    assert set(load("results")["status"]) == {"ok"}


@pytest.mark.parametrize("many", [False, True])
def test_what_a_machine_lacks_is_said_and_never_recorded(
    in_folder: Path, small: list[str], many: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", *(["-m"] if many else []), "defense=none", "attack=random", *small]
    with monkeypatch.context() as patched:
        patched.setattr("torch.empty", lambda *_, **more: _lacking(more))
        assert smd([*command, "device=mps"]) == 1
    shown = capsys.readouterr()
    assert "device=mps: this machine has none that can be used; use device=cpu" in shown.out + shown.err
    assert not Path("results/cells").exists() or not folders()
    assert smd(command) == 0
    assert load("results")["status"].unique().tolist() == ["ok"]


def _lacking(_: object) -> None:
    raise RuntimeError("no such back end")


@pytest.mark.parametrize("many", [False, True])
def test_a_server_that_does_not_listen_yet_leaves_no_record(
    in_folder: Path, small: list[str], many: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", *(["-m"] if many else []), "defense=smd", "attack=random", "transport=tcp", *small]
    assert smd([*command, "address=127.0.0.1:9"]) == 1
    shown = capsys.readouterr()
    assert "cannot reach 127.0.0.1:9" in shown.out + shown.err
    assert not Path("results/cells").exists() or not folders()


def test_an_unknown_device_is_refused(in_folder: Path, small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert smd(["run", "defense=none", "attack=none", "device=gpu", *small]) == 1
    assert "device=gpu is unknown" in one_error(capsys)


def test_a_corrupt_record_is_named(in_folder: Path, small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "defense=none", "attack=none", *small]
    assert smd(command) == 0
    (folders()[0] / "metrics.json").write_text('{"status": "ok"')
    capsys.readouterr()
    assert smd(command) == 1
    shown = one_error(capsys)
    assert "corrupt record" in shown
    assert folders()[0].name in shown
    assert smd([*command, "rerun=always"]) == 0
    assert smd(command) == 0


def test_a_results_folder_that_cannot_be_written_stops_a_sweep_at_once(
    in_folder: Path, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("results").write_text("in the way")
    assert smd(["run", "defense=none", "attack=none", *small]) == 1
    assert "cannot write" in one_error(capsys)


DYING = """
import os
from functools import partial
from smd_research.defenses.none import NoDefense, PlainDeployment, PlainPrepared, PlainProvider


class Mortal(PlainProvider):
    def handle(self, message):
        os._exit(3)


class MortalDeployment(PlainDeployment):
    def __init__(self, bundle, boundary):
        super().__init__(bundle, boundary)
        boundary.close()
        self._channel = boundary.open(self.client, partial(Mortal, bundle))


class Doomed(PlainPrepared):
    def deploy(self, boundary):
        return MortalDeployment(self.bundle, boundary)


class Dying(NoDefense):
    def prepare(self, bundle, *text_seed_and_folder):
        return Doomed(**vars(super().prepare(bundle)))
"""


def test_a_provider_that_dies_in_the_middle_fails_its_cell_with_one_line(
    tmp_path: Path, small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf" / "defense").mkdir(parents=True)
    (tmp_path / "conf" / "defense" / "dying.yaml").write_text("# Dies.\n_target_: defense_that_dies.Dying\n")
    (tmp_path / "defense_that_dies.py").write_text(DYING)
    monkeypatch.chdir(tmp_path)
    assert smd(["run", "-cd", "conf", "defense=dying", "attack=none", "transport=process", *small]) == 1
    assert "is failed: the peer disconnected" in one_error(capsys)


def test_report_shows_prompts_and_writes_a_page(
    in_folder: Path, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert smd(["report"]) == 1
    assert "holds no records" in one_error(capsys)
    assert smd(["run", "-m", "defense=none", "attack=random,reading", *small]) == 0
    capsys.readouterr()
    assert smd(["report", "prompts=2"]) == 0
    shown = capsys.readouterr().out
    assert "reading on embedded" in shown
    assert "Maria" in shown or "Lisbon" in shown or "Tom" in shown or "patient" in shown.lower()
    assert Path("results/report.html").stat().st_size > 5_000
    assert smd(["report", "cell=raeding"]) == 1
    assert "no record in results is named 'raeding'" in one_error(capsys)


def test_a_table_runs_what_it_lacks_and_is_written_in_four_forms_beside_its_records(
    in_folder: Path, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["table", "table=inversion", *small]
    assert smd(command) == 0
    written = sorted(str(path.relative_to("results/tables")) for path in Path("results/tables").rglob("*.*"))
    forms = ["inversion.csv", "inversion.md", "inversion.png", "inversion.tex"]
    assert written == [*forms, "records/inversion.parquet"]
    assert "partial_attention_inversion" in Path("results/tables/inversion.csv").read_text()
    capsys.readouterr()
    assert smd(command) == 0
    assert "3 cells: 0 run now, 3 known before, 0 failed" in capsys.readouterr().out
