"""A stock Hugging Face causal LM with its tokenizer and geometry."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from smd_research.core.errors import PromptError, UnsupportedModelError
from smd_research.models.families import Names, family_of


@dataclass(frozen=True)
class Geometry:
    """Sizes of a decoder: ``layers`` blocks of ``width``, ``heads`` query and ``kv_heads`` key/value heads."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int


def geometry_of(config: Any) -> Geometry:
    """Read a decoder's sizes from its configuration, whatever the family calls them.

    Raises:
        UnsupportedModelError: for one that calls a size by none of the names known.
    """
    names = family_of(str(config.model_type)).sizes
    layers, width, heads = (_required(config, known) for known in (names.layers, names.width, names.heads))
    return Geometry(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=int(_first(config, names.kv_heads) or heads),
        head_dim=int(_first(config, names.head_dim) or width // heads),
        vocab=int(config.vocab_size),
        context=_context(config, names.context),
    )


def _context(config: Any, names: Names) -> int:
    """Positions that can be served one after the other: up to where the angles of all earlier ones would change.

    LongRoPE and dynamic scaling recompute a whole text's angles at a length, which no cache of keys survives; Llama-4's
    attention scale changes at a length that the model counts by its own cache.
    """
    context = int(_first(config, names) or 2048)
    rope = getattr(config, "rope_parameters", None) or {}
    for parameters in rope.values() if all(isinstance(one, dict) for one in rope.values()) else (rope,):
        if parameters.get("rope_type") in ("longrope", "dynamic"):
            switch = parameters.get("original_max_position_embeddings")
            context = min(context, int(switch or getattr(config, "original_max_position_embeddings", None) or context))
    if getattr(config, "attn_temperature_tuning", False):
        context = min(context, int(config.floor_scale) - 1)
    return context


_NO_RECORD = "either it has no attention, or the family needs a record in models/families.py"


def _first(config: Any, names: Names) -> Any:
    values = (getattr(config, name, None) for name in names)
    return next((value for value in values if value is not None), None)


def _required(config: Any, names: Names) -> int:
    value = _first(config, names)
    if value is None:
        parts = ", ".join(sorted(getattr(type(config), "sub_configs", {})))
        raise UnsupportedModelError(
            f"the configuration of family '{config.model_type}' has no {' or '.join(names)}: "
            + (f"it is put together of {parts}, and only one text model can be served" if parts else _NO_RECORD)
        )
    return int(value)


@dataclass(frozen=True, repr=False)
class Bundle:
    """A model as it comes: stock weights in evaluation mode, tokenizer, geometry.

    Attributes:
        name: how records call it.
        model: a Hugging Face causal LM; never modified.
        tokenizer: its tokenizer.
        geometry: its sizes.
        end_ids: tokens after any of which a text is over, that of the tokenizer first.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    geometry: Geometry
    end_ids: tuple[int, ...]

    @classmethod
    def of(cls, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> "Bundle":
        """Wrap a loaded model."""
        model.eval().requires_grad_(False)
        if getattr(model.config, "attn_logit_softcapping", None) and model.config._attn_implementation == "sdpa":
            model.set_attn_implementation("eager")  # the fused kernel leaves the cap out, which older releases let pass
        return cls(name, model, tokenizer, geometry_of(model.config), ends_of(model, tokenizer))

    @property
    def family(self) -> str:
        """The architecture's name, e.g. ``llama``."""
        return str(self.model.config.model_type)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.embedding.dtype

    @property
    def weight_bytes(self) -> int:
        """Bytes of all distinct parameters and buffers."""
        tensors = {t.data_ptr(): t.nbytes for t in (*self.model.parameters(), *self.model.buffers())}
        return sum(tensors.values())

    @property
    def embedding(self) -> Tensor:
        """The input embedding table ``[vocab, width]``."""
        table: Tensor = self.model.get_input_embeddings().weight
        return table

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of special tokens, which no defense alters and no metric counts."""
        rows = len(self.embedding)
        return frozenset(one for one in self.tokenizer.all_special_ids if one < rows).union(self.end_ids)

    @property
    def end_id(self) -> int | None:
        """The token to write where a text is to end; whether one has ended, ``end_ids`` say."""
        return self.end_ids[0] if self.end_ids else None

    def decode(self, ids: list[int] | tuple[int, ...]) -> str:
        """Text of token ids, special tokens left out."""
        kept = [i for i in ids if 0 <= i < len(self.tokenizer) and i not in self.special_ids]
        return str(self.tokenizer.decode(kept, clean_up_tokenization_spaces=False))

    def check_prompt(self, length: int, new_tokens: int) -> None:
        """Checks that a prompt is not empty and fits the context with the tokens to come.

        Raises:
            PromptError: for an empty prompt, or one that leaves no room in the context.
        """
        if length == 0:
            raise PromptError("the prompt is empty: give at least one token")
        if length + new_tokens > self.geometry.context:
            raise PromptError(
                f"{length} prompt tokens and {new_tokens} new ones exceed the context of {self.geometry.context} of "
                f"{self.name}: lower prompt_tokens= or max_new_tokens="
            )

    def check_ids(self, ids: Tensor) -> None:
        """Refuse token ids that the model does not have, of a peer or a text; some devices never recover from one.

        Raises:
            PromptError: when there are any.
        """
        if not bool(((ids >= 0) & (ids < len(self.embedding))).all()):
            raise PromptError(f"token ids that {self.name} does not have: it has {len(self.embedding)}")

    def fingerprint(self) -> str:
        """A short digest of the weights, to show that nothing changed them."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        return f"Bundle({self.name!r}, {self.family}, {self.geometry})"


def ends_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens after any of which a text is over: what tokenizer, configuration and generation settings name.

    Chat models name several, and rarely all of them in one place. Ids that the model does not have are left out.
    """
    places = (tokenizer, model.config, model.config.get_text_config(), getattr(model, "generation_config", None))
    named: list[Any] = []
    for place in places:
        ends = getattr(place, "eos_token_id", None)
        named += ends if isinstance(ends, list | tuple) else [ends]
    rows = len(model.get_input_embeddings().weight)
    return tuple(dict.fromkeys(end for end in named if type(end) is int and 0 <= end < rows))
