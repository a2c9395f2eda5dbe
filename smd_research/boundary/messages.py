"""Everything that may cross the boundary: frozen dataclasses of tensors and integers.

A message's payload is its tensors; integer fields address the payload (which layer, which position) and are counted
with the frame. The order of ``MESSAGES`` is the wire's type number: append, never reorder.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, repr=False, eq=False)
class Message:
    """Base of all messages; its repr shows shapes only, never values."""

    @property
    def nbytes(self) -> int:
        """Payload bytes: those of the tensors."""
        values = (getattr(self, field.name) for field in fields(self))
        return sum(value.nbytes for value in values if isinstance(value, Tensor))

    def __repr__(self) -> str:
        shown = []
        for field in fields(self):
            value = getattr(self, field.name)
            kind = f"{value.dtype}{list(value.shape)}" if isinstance(value, Tensor) else "int"
            shown.append(f"{field.name}: {kind}")
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, repr=False, eq=False)
class PromptIds(Message):
    """The whole prompt, or what a sanitiser made of it, in plain token ids ``[n]`` (int32)."""

    ids: Tensor
    max_new_tokens: int


@dataclass(frozen=True, repr=False, eq=False)
class HiddenStates(Message):
    """Hidden states ``[rows, width]`` of positions ``position ..`` at the cut; answered by the next token."""

    hidden: Tensor
    position: int


@dataclass(frozen=True, repr=False, eq=False)
class StartDecode(Message):
    """SMD: the first token ``[1]`` (int32) and its absolute position, which tells the prompt's length."""

    first: Tensor
    position: int
    max_new_tokens: int


@dataclass(frozen=True, repr=False, eq=False)
class Query(Message):
    """SMD: queries of one layer ``[heads, head_dim]``, after rotary embedding and QK-norm."""

    q: Tensor
    layer: int
    position: int


@dataclass(frozen=True, repr=False, eq=False)
class PartialAttention(Message):
    """SMD: a shard's row maximum ``m [heads]``, sum ``g [heads]`` (fp32) and attention ``a [heads, head_dim]``."""

    m: Tensor
    g: Tensor
    a: Tensor


@dataclass(frozen=True, repr=False, eq=False)
class AttentionInputs(Message):
    """Split with secret row order: unrotated ``q [rows, heads, d]``, ``k``, ``v [rows, kv_heads, d]`` of one layer."""

    q: Tensor
    k: Tensor
    v: Tensor
    layer: int


@dataclass(frozen=True, repr=False, eq=False)
class AttentionContext(Message):
    """Split with secret row order: the attention output ``[rows, heads, d]`` of one layer."""

    context: Tensor


@dataclass(frozen=True, repr=False, eq=False)
class Tokens(Message):
    """Generated token ids ``[k]`` (int32)."""

    ids: Tensor


@dataclass(frozen=True, repr=False, eq=False)
class Done(Message):
    """An empty answer."""


MESSAGES: tuple[type[Message], ...] = (
    PromptIds,
    HiddenStates,
    StartDecode,
    Query,
    PartialAttention,
    AttentionInputs,
    AttentionContext,
    Tokens,
    Done,
)


def token_tensor(ids: list[int] | tuple[int, ...]) -> Tensor:
    """Token ids as they cross the wire: int32 ``[n]``."""
    return torch.tensor(ids, dtype=torch.int32)
