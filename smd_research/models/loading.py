"""A model and its tokenizer as published: loaded whole and as they are, or refused in one line.

``from_pretrained`` draws what a checkpoint lacks at random and warns; here that is an error, as is whatever the
configuration does not account for.
"""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as progress

from smd_research.core.errors import ConfigError
from smd_research.core.quoting import quoted
from smd_research.models.model_folder import tensor_names, weight_files

_WEIGHTS_A_BYTE = 4  # at most, whatever the quantisation


def load(
    source: str | Path, dtype: torch.dtype, device: str = "cpu", **where: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer.

    Args:
        source: a folder that :func:`~smd_research.models.model_folder.check_folder` found whole, or a name on the hub.
        dtype: of the weights.
        device: where they go.
        where: ``local_files_only`` or ``revision``, as transformers takes them.

    Raises:
        ConfigError: for whatever transformers cannot load; weights that are missing, left over, of another shape, not
            tied as the configuration says, or not finite; a tokenizer without offsets, or with ids that the embedding
            does not have.
    """
    options = {**where, "trust_remote_code": False}
    with quietly():
        try:
            config = AutoConfig.from_pretrained(source, **options)
            if isinstance(source, Path):
                _check_size(source, config)
            model, found = AutoModelForCausalLM.from_pretrained(
                source, config=config, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
        except ConfigError:
            raise
        except Exception as error:  # a damaged checkpoint surfaces as nearly any error of several libraries
            raise ConfigError(f"the model at {source} cannot be loaded: {reason_of(error)}") from None
        _check_keys(source, found)
        if isinstance(source, Path):
            _check_once(source, model)
        _check_tied(source, model)
        _check_values(source, model)
        tokenizer = _tokenizer(source, options)
    _check_ids(source, tokenizer, model)
    return model.to(device), tokenizer


def _tokenizer(source: str | Path, options: dict[str, Any]) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except Exception as error:  # as above: parsers, converters and missing packages each raise their own
        raise ConfigError(
            f"the tokenizer at {source} cannot be loaded: {reason_of(error)}; it needs a tokenizer.json, as "
            "tokenizer.save_pretrained writes it"
        ) from None
    if not tokenizer.is_fast:
        raise ConfigError(f"the tokenizer at {source} gives no offsets: it needs a tokenizer.json")
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ConfigError(f"no tokenizer at {source}: there is no vocabulary beside the model; save its tokenizer.json")
    return tokenizer


def _check_size(folder: Path, config: Any) -> None:
    """Refuse a configuration of a far larger model before memory is taken for weights that no file holds."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    asked = sum(one.numel() for one in model.parameters())
    held = sum(file.stat().st_size for file in weight_files(folder))
    if asked > held * _WEIGHTS_A_BYTE:
        raise ConfigError(
            f"{folder}/config.json describes {asked:,} weights, but its files hold {held:,} bytes: they belong to "
            "different models, or the configuration lacks sizes"
        )


def _check_keys(source: str | Path, found: dict[str, Any]) -> None:
    """Refuse a checkpoint that is not the model of its configuration, by what transformers found out."""
    missing, left_over = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
    other = sorted(f"{name} {list(held)} for {list(asked)}" for name, held, asked in found["mismatched_keys"])
    parts = {"missing": missing, "not in the model": left_over, "of another shape": other}
    said = [f"{len(names)} {what} ({_first(names)})" for what, names in parts.items() if names]
    if not said:
        return
    if left_over or other or len(missing) > 1:
        mend = "mend the configuration, or save the model again with its causal head"
    else:
        mend = "save the model again with it; tie_word_embeddings=true is for a head that is the embedding"
    raise ConfigError(f"the weights at {source} do not match its config.json: {', '.join(said)}; {mend}")


def _check_once(folder: Path, model: PreTrainedModel) -> None:
    """Refuse weights that are there twice, with and without the base model's prefix: one would be taken at random."""
    names = tensor_names(folder)
    twice = sorted(names & {f"{model.base_model_prefix}.{name}" for name in names})
    if twice:
        raise ConfigError(f"the weights at {folder} are there twice, under another prefix ({_first(twice)}): keep one")


def _check_tied(source: str | Path, model: PreTrainedModel) -> None:
    """Refuse two different matrices where the configuration says that they are one."""
    for one, other in model.get_expanded_tied_weights_keys(all_submodels=True).items():
        if model.get_parameter_or_buffer(one) is not model.get_parameter_or_buffer(other):
            raise ConfigError(
                f"the weights at {source} do not match its config.json: it ties {one} to {other}, and the files hold "
                "two different ones; set tie_word_embeddings=false, or remove the one that is not used"
            )


def _check_values(source: str | Path, model: PreTrainedModel) -> None:
    """Refuse weights that are no finite floating-point numbers; one pass over them."""
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            if isinstance(model.get_parameter_or_buffer(name), torch.nn.Parameter):
                raise ConfigError(f"{name} at {source} is {tensor.dtype}: use the model before its quantisation")
        elif not _finite(tensor):
            raise ConfigError(
                f"{name} at {source} holds NaN or infinity in {str(tensor.dtype).removeprefix('torch.')}: use "
                "dtype=fp32 if the type is too narrow, or a checkpoint that is not damaged"
            )


def _finite(tensor: Tensor) -> bool:
    """Whether all values are; smallest and largest carry a NaN, and take no memory beside."""
    return tensor.numel() == 0 or all(bool(end.isfinite()) for end in torch.aminmax(tensor.detach()))


def _check_ids(source: str | Path, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Refuse a tokenizer that gives ids without a row in the embedding.

    Special tokens that text models inherit from their family of images and sound (Gemma-3) are let pass where no role
    is theirs: nothing that is served holds them.
    """
    rows = int(model.get_input_embeddings().weight.shape[0])
    roles = {token for token in tokenizer.special_tokens_map.values() if isinstance(token, str)}
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special} - roles
    beyond = sorted((index, token) for token, index in tokenizer.get_vocab().items() if index >= rows)
    if any(token not in special for _, token in beyond):
        index, token = beyond[-1]
        raise ConfigError(
            f"the tokenizer at {source} has ids up to {index} ('{quoted(token, 40)}'), the embedding {rows} rows: they "
            "belong to different models, or the embedding has to be resized"
        )


@contextmanager
def quietly() -> Iterator[None]:
    """What transformers warns of while it loads is checked here, and refused; its bar knows no terminal from a file."""
    log = logging.getLogger("transformers")
    level, bar = log.level, progress.is_progress_bar_enabled()
    log.setLevel(logging.ERROR)
    progress.disable_progress_bar()
    try:
        yield
    finally:
        log.setLevel(level)
        if bar:
            progress.enable_progress_bar()


def reason_of(error: Exception) -> str:
    """The first line of a library's error that says something, on one line."""
    text = str(error).strip()
    if "Weights only load failed" in text:
        return "its pickled weights hold more than tensors and are never run; save them as safetensors"
    if "conversion of the weights" in text:
        return "its weights do not fit together as its config.json says (a part of a layer or an expert is missing)"
    if isinstance(error, KeyError):
        return f"a library does not know {quoted(text)}"
    first, second, *_ = (*filter(None, map(str.strip, text.splitlines())), "", "")
    return quoted(f"{first} {second}" if first.endswith(":") else first or type(error).__name__)


def _first(names: Collection[str], limit: int = 3) -> str:
    shown = ", ".join(list(names)[:limit])
    return f"{shown}, ..." if len(names) > limit else shown
