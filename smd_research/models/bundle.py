"""A stock Hugging Face causal LM with its tokenizer and geometry."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
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
        context=int(_first(config, names.context) or 2048),
    )


def _first(config: Any, names: Names) -> Any:
    values = (getattr(config, name, None) for name in names)
    return next((value for value in values if value is not None), None)


def _required(config: Any, names: Names) -> int:
    value = _first(config, names)
    if value is None:
        raise UnsupportedModelError(
            f"the configuration of family '{config.model_type}' has no {' or '.join(names)}: the family needs a record "
            "in models/families.py"
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

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of special tokens, which no defense alters and no metric counts."""
        return frozenset(one for one in self.tokenizer.all_special_ids if one < len(self.embedding)).union(self.end_ids)

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


def rotary_module(model: PreTrainedModel) -> nn.Module | None:
    """The model's rotary embedding, or None for learned absolute positions."""
    names = family_of(str(model.config.model_type)).rotary
    return next((module for name, module in model.named_modules() if name.rsplit(".", 1)[-1] in names), None)


def rotate(model: PreTrainedModel, x: Tensor, positions: Tensor) -> Tensor:
    """Apply the model's rotary embedding to queries or keys taken at position 0.

    Args:
        model: any of the supported families; one without rotary embedding returns ``x`` unchanged.
        x: ``[..., rows, head_dim]``.
        positions: absolute positions ``[rows]``.

    Returns:
        ``x`` rotated, same shape; only the leading rotary dimensions change (partial rotary families).
    """
    module: Any = rotary_module(model)
    if module is None:
        return x
    cos, sin = module(x, positions.unsqueeze(0))
    cos, sin = cos[0], sin[0]
    if cos.shape[-1] == module.inv_freq.shape[-1]:  # one angle a pair (GPT-OSS), elsewhere one a dimension
        cos, sin = torch.cat((cos, cos), dim=-1), torch.cat((sin, sin), dim=-1)
    scaling = getattr(module, "attention_scaling", 1.0)
    if scaling != 1:  # YaRN: what was taken at position 0 is scaled already
        cos, sin = cos / scaling, sin / scaling
    turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    half = turned.shape[-1] // 2
    crossed = torch.cat((-turned[..., half:], turned[..., :half]), dim=-1)
    return torch.cat((turned * cos + crossed * sin, rest), dim=-1)
