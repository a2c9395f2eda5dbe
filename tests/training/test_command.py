"""``smd train``: from a command to a model folder with its card."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from transformers import AutoModelForCausalLM

from experiments.commands.train import main
from experiments.commands.training import run_of
from experiments.composing.app import VERSION_BASE
from experiments.composing.overrides import groups
from smd_research.core.paths import conf_dir
from smd_research.models import sources
from smd_research.models.decoding import plain_greedy

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "architecture.hidden_size=32",
    "architecture.layers=1",
    "architecture.heads=2",
    "architecture.intermediate_size=64",
    "architecture.context=256",
    "row_tokens=64",
    "steps=4",
    "epoch_steps=2",
    "warmup=1",
    "trigram_tokens=2000",
    "precision=32-true",
    "accelerator=cpu",
    "threads=1",
    "progress=false",
]
TINY = [
    "model=embedded",
    "architecture.kv_heads=1",
    "architecture.vocabulary=512",
    "tokenizer_documents=200",
    *SMALL,
]


@pytest.mark.slow
def test_trains_exports_and_writes_the_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    out = tmp_path / "model"
    command = [*TINY, f"work_dir={tmp_path / 'work'}", f"out_dir={out}"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "all: perplexity" in said.out
    assert said.err == ""  # no library announces itself; the lab's own lines are logged
    assert [str(one.message) for one in recwarn] == []
    assert AutoModelForCausalLM.from_pretrained(out).config.hidden_size == 32
    first = (out / "README.md").read_text()
    assert "4 steps of 2 x 64" in first
    assert main(command) == 0  # a finished run is only written again
    assert (out / "README.md").read_text() == first


@pytest.mark.slow
def test_another_architecture_becomes_a_local_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpt2_style"
    assert main(["architecture=gpt2", *SMALL, f"work_dir={tmp_path / 'work'}", f"out_dir={out}"]) == 0
    assert str(out) in capsys.readouterr().out
    bundle = sources.local(str(out))
    assert (bundle.family, bundle.geometry.head_dim) == ("gpt2", 16)
    assert len(plain_greedy(bundle, tuple(bundle.tokenizer("Dear Ann")["input_ids"]), 3)) > 0
    assert bundle.tokenizer("Dear Ann,")["input_ids"] == sources.embedded_tokenizer()("Dear Ann,")["input_ids"]
    card = (out / "README.md").read_text()
    assert "# A GPT-2-style model" in card
    assert "learned absolute positions" in card
    assert "`smd train architecture=gpt2`" in card


# What the card calls it, the width of a head, and bounds of its parameters in millions.
SHAPES = {
    "llama": ("llama", 32, (3, 6)),
    "gpt2": ("gpt2", 32, (3, 6)),
    "descendant": ("descendant", 32, (3, 6)),
    "small": ("llama", 16, (0.5, 1)),
}


@pytest.mark.parametrize("architecture", groups(conf_dir())["architecture"])
def test_every_architecture_is_a_run(architecture: str) -> None:
    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        cfg = compose("train", overrides=[f"architecture={architecture}"])
    run = run_of(cfg)
    name, head_dim, (least, most) = SHAPES[architecture]
    assert run.architecture.name == name
    assert run.architecture.head_dim == head_dim
    parameters = sum(p.numel() for p in run.architecture.build(sources.embedded_tokenizer()).parameters())
    assert least * 1e6 < parameters < most * 1e6
    assert (cfg.out_dir is None) == (architecture == "llama"), "only the embedded model is written into the package"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("batch=0", "batch=0"),
        ("steps=many", "steps=many"),
        ("learning_rate=-1", "learning_rate=-1"),
        ("precision=fp8", "precision=fp8"),
        ("register=legal", "register=legal"),
    ],
)
def test_a_number_that_cannot_be_is_refused_before_anything_is_loaded(
    word: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "experiments.commands.training", None)  # importing it would fail
    assert main([word]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tokenizer=own"], "tokenizer=own is unknown: use train or embedded"),
        (["tokenizer=embedded"], "architecture.vocabulary=512: the shipped tokenizer has 4096"),
        (["steps=5"], "steps=5 is not a multiple of epoch_steps=2"),
        (["model=local", "model.path=somewhere"], "model=local cannot be trained here; choose architecture="),
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


@pytest.fixture(scope="module")
def by_one_device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one") / "model"
    assert main([*TINY, f"work_dir={out}-work", f"out_dir={out}"]) == 0
    return out


@pytest.mark.slow
@pytest.mark.parametrize("words", [["strategy=ddp"], ["strategy=fsdp", "export_every=2"]])
def test_two_devices_share_each_step_and_train_the_same_model(
    words: list[str], by_one_device: Path, tmp_path: Path
) -> None:
    """As one does, up to the order in which gradients are added; Lightning starts the command again for the second."""
    out = tmp_path / "two"
    command = [*TINY, f"work_dir={out}-work", f"out_dir={out}", "devices=2", *words]
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "train", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to") == 1
    one, two = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (by_one_device, out))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5


def test_devices_that_cannot_share_a_batch_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, f"work_dir={tmp_path / 'work'}", f"out_dir={tmp_path / 'out'}", "batch=3", "devices=2"]) == 1
    assert "batch=3 rows cannot be shared evenly by devices=2" in capsys.readouterr().err
