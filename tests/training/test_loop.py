"""Training lowers the loss, resumes as if it had never stopped, and exports what transformers reads."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from smd_research.data.synthetic import generate
from smd_research.training.architecture import Gpt2, Llama
from smd_research.training.card import card, samples
from smd_research.training.causal_lm import CausalLM, Optimisation
from smd_research.training.export import export
from smd_research.training.heldout import encode, held_out, nats, trigram_of_train
from smd_research.training.loop import Run, Trained, train
from smd_research.training.packing import PackedRows

TINY = Run(
    architecture=Llama(
        hidden_size=32, layers=1, heads=2, kv_heads=1, intermediate_size=64, vocabulary=512, context=128
    ),
    register="mixed",
    seed=0,
    row_tokens=64,
    batch=4,
    steps=24,
    epoch_steps=8,
    learning_rate=1e-2,
    warmup=4,
    clip=1.0,
    tokenizer="train",
    tokenizer_documents=200,
    precision="32-true",
)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(TINY, tmp_path_factory.mktemp("unbroken"), accelerator="cpu", progress=False)


def loss(trained: Trained) -> float:
    rows = PackedRows(trained.tokenizer, "mixed", "validation", 0, 64, first=0, count=8)
    with torch.inference_mode():
        return float(CausalLM(trained.model, Optimisation(1e-3, 1, 1)).loss(torch.stack(list(rows))))


def test_training_lowers_the_loss(unbroken: Trained) -> None:
    torch.manual_seed(0)
    fresh = replace(unbroken, model=TINY.architecture.build(unbroken.tokenizer).eval())
    assert unbroken.steps == TINY.steps
    assert loss(unbroken) < loss(fresh) - 0.5


def test_a_gpt2_learns_and_exports_like_a_llama(tmp_path: Path) -> None:
    shape = Gpt2(hidden_size=32, layers=1, heads=2, intermediate_size=64, vocabulary=512, context=128)
    trained = train(replace(TINY, architecture=shape), tmp_path / "work", accelerator="cpu", progress=False)
    torch.manual_seed(0)
    assert loss(trained) < loss(replace(trained, model=shape.build(trained.tokenizer).eval())) - 0.5
    export(trained.model, trained.tokenizer, tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    ids = trained.tokenizer("Dear Ann, the clinic called.", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, trained.model(ids).logits, rtol=0.02, atol=0.02)
    assert model.config.model_type == "gpt2"
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_a_resumed_run_equals_an_unbroken_one(unbroken: Trained, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(_model: object, _tokenizer: object, step: int) -> None:
        if step == 2 * TINY.epoch_steps:
            raise Killed

    with pytest.raises(Killed):  # after the checkpoint of the first epoch, before that of the second
        train(TINY, tmp_path, accelerator="cpu", progress=False, on_epoch=kill)
    assert (tmp_path / "last.ckpt").is_file()
    resumed = train(TINY, tmp_path, accelerator="cpu", progress=False)
    assert resumed.steps == unbroken.steps
    assert resumed.seconds > 0
    for name, tensor in unbroken.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, rtol=0, atol=0)


def test_a_finished_run_is_not_trained_again(unbroken: Trained, tmp_path: Path) -> None:
    short = replace(TINY, steps=8)
    first = train(short, tmp_path, accelerator="cpu", progress=False)
    again = train(short, tmp_path, accelerator="cpu", progress=False)
    assert again.steps == first.steps == 8
    for name, tensor in first.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], tensor, rtol=0, atol=0)


def test_rows_are_a_function_of_their_number(unbroken: Trained) -> None:
    rows = PackedRows(unbroken.tokenizer, "mixed", "train", 0, 64, first=0, count=6)
    later = PackedRows(unbroken.tokenizer, "mixed", "train", 0, 64, first=4, count=2)
    assert torch.equal(rows[5], later[1])
    assert not torch.equal(rows[4], rows[5])
    assert all(row.shape == (64,) and int(row[0]) == unbroken.tokenizer.bos_token_id for row in rows)
    with pytest.raises(IndexError):
        rows[6]


def test_schedule_warms_up_and_decays() -> None:
    optimisation = Optimisation(1e-3, warmup=10, steps=100)
    shares = [optimisation.share(step) for step in range(101)]
    assert shares[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert shares[10] == pytest.approx(1.0)
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert shares[100] == pytest.approx(optimisation.final)


def test_export_loads_and_computes_the_same(unbroken: Trained, tmp_path: Path) -> None:
    export(unbroken.model, unbroken.tokenizer, tmp_path)
    export(unbroken.model, unbroken.tokenizer, tmp_path)  # again, over the first
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("Dear Ann, the clinic called.", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, unbroken.model(ids).logits, rtol=0.02, atol=0.02)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not (tmp_path / ".part").exists()


def test_perplexity_is_that_of_the_logits(unbroken: Trained) -> None:
    ids = encode([generate("personal", "evaluation", 1)[0].text[:80]], unbroken.tokenizer)[0]
    with torch.inference_mode():
        logs = unbroken.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    by_hand = -sum(float(logs[position, token]) for position, token in enumerate(ids[1:]))
    assert nats(unbroken.model, ids) == pytest.approx(by_hand, rel=1e-4)


def test_the_card_tells_the_numbers_of_the_run(unbroken: Trained, tmp_path: Path) -> None:
    export(unbroken.model, unbroken.tokenizer, tmp_path)
    trigram = trigram_of_train(unbroken.tokenizer, "mixed", 5_000, seed=2)
    held = held_out(unbroken.model, unbroken.tokenizer, trigram, documents=2)
    written = samples(unbroken.model, unbroken.tokenizer, 0)
    text = card(TINY, unbroken, held, written, 5_000, tmp_path / "model.safetensors", "A tiny model", "It was cold.")
    assert "# A tiny model" in text
    assert "Note: It was cold." in text
    assert [row.register for row in held] == ["clinical", "financial", "personal", "all"]
    for expected in (f"{TINY.tokens:,} tokens", "24 steps of 4 x 64", f"{held[-1].model:.2f}", written[0].continuation):
        assert expected in text
    assert all(1 < row.trigram < 512 * 10 and row.model > 1 for row in held)
