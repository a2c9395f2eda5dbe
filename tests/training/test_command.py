"""``smd train``: from a command to a model folder with its card."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from experiments.train import main

TINY = [
    "model=embedded",
    "architecture.hidden_size=32",
    "architecture.layers=1",
    "architecture.heads=2",
    "architecture.kv_heads=1",
    "architecture.intermediate_size=64",
    "architecture.vocabulary=512",
    "architecture.context=256",
    "row_tokens=64",
    "steps=4",
    "epoch_steps=2",
    "warmup=1",
    "tokenizer_documents=200",
    "trigram_tokens=2000",
    "precision=32-true",
    "accelerator=cpu",
    "threads=1",
    "progress=false",
]


@pytest.mark.slow
def test_trains_exports_and_writes_the_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    command = [*TINY, f"work_dir={tmp_path / 'work'}", f"out_dir={out}"]
    assert main(command) == 0
    assert "all: perplexity" in capsys.readouterr().out
    assert AutoModelForCausalLM.from_pretrained(out).config.hidden_size == 32
    first = (out / "README.md").read_text()
    assert "4 steps of 2 x 64" in first
    assert main(command) == 0  # a finished run is only written again
    assert (out / "README.md").read_text() == first


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["steps=5"], "steps=5 is not a multiple of epoch_steps=2"),
        (["model=local", "model.path=somewhere"], "model=local cannot be trained here; use model=embedded"),
    ],
)
def test_wrong_commands_are_one_line(
    overrides: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = [word for word in TINY if word.split("=")[0] not in {o.split("=")[0] for o in overrides}]
    assert main([*kept, f"work_dir={tmp_path}", f"out_dir={tmp_path}", *overrides]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
