"""What a command prints is its own: no library warns, announces itself or draws a bar."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from experiments.commands.cli import main as smd
from smd_research.models import sources

OWN = re.compile(r"(\[ *\d+/\d+\] )?\w+ against \w+ on [\w-]+( \.\.\.|: (ok|n/a: .*))")


@pytest.mark.parametrize(
    "words",
    [
        ["defense=split", "attack=vocab_matching"],
        ["defense=smd", "attack=partial_attention_inversion", "transport=process"],
        ["defense=dp_hidden", "attack=nearest_token", "model=random", "model.family=gpt2"],
        pytest.param(["defense=po", "attack=pick_stream", "transport=process"], marks=pytest.mark.slow),
        pytest.param(["defense=shaking", "attack=combined", "task=note_type"], marks=pytest.mark.slow),
        pytest.param(["defense=slip", "defense.blocks=[0]", "attack=finetune_lora"], marks=pytest.mark.slow),
    ],
    ids=lambda words: "-".join(word.partition("=")[2] for word in words if not word.startswith("defense.")),
)
def test_a_run_prints_nothing_of_a_library(
    in_folder: Path,
    words: Sequence[str],
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    assert smd(["run", "experiment=smoke", *words]) == 0
    own = ("smd_research.", "experiments.")
    assert [str(one.message) for one in recwarn if not one.category.__module__.startswith(own)] == []
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if not OWN.fullmatch(line)] == []


def test_a_model_with_odd_settings_draws_no_warning(
    in_folder: Path, tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ids outside of the vocabulary, and sampling settings that greedy choice does not use."""
    folder = tmp_path_factory.mktemp("models") / "odd"
    bundle = sources.random("llama")
    bundle.model.save_pretrained(folder)
    bundle.tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text()) | {"eos_token_id": [2, 128009], "bos_token_id": 128000}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").write_text('{"temperature": 0.6, "top_p": 0.9, "eos_token_id": [2, 128009]}')
    capfd.readouterr()
    words = ["run", "experiment=smoke", "defense=smd", "attack=prior", "model=local", f"model.path={folder}"]
    assert smd(words) == 0
    assert [line for line in capfd.readouterr().err.splitlines() if not OWN.fullmatch(line)] == []
