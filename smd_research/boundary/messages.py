"""Everything that may cross the boundary: frozen dataclasses of tensors and integers.

A message's payload is its tensors; integer fields address the payload (which layer, which position) and are counted
with the frame. Each tensor field is declared with what it ``Carries``, and the wire holds every message against that in
both directions: a party never meets another dtype or rank. The order of ``MESSAGES`` is the wire's type number: append,
never reorder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, ClassVar, Self

import torch
from torch import Tensor

MAX_TENSOR_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Carries:
    """What a tensor field of a message may hold.

    Attributes:
        dtypes: its types.
        rank: its number of dimensions.
    """

    dtypes: tuple[torch.dtype, ...]
    rank: int

    def objection(self, dtype: torch.dtype, shape: Sequence[int]) -> str | None:
        """Why a tensor cannot be this field, or None.

        An empty dimension counts as one: however empty a tensor is, its other dimensions are bounded.
        """
        if dtype not in self.dtypes or len(shape) != self.rank:
            due = " or ".join(str(one).removeprefix("torch.") for one in self.dtypes)
            kind = str(dtype).removeprefix("torch.")
            return f"is {kind} with {len(shape)} dimensions where {due} with {self.rank} is due"
        nbytes = dtype.itemsize
        for size in shape:
            nbytes *= size or 1
        return f"is over the limit of {MAX_TENSOR_BYTES} bytes" if nbytes > MAX_TENSOR_BYTES else None


_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_FP32 = (torch.float32,)

Ids = Annotated[Tensor, Carries((torch.int32,), 1)]
"""Token ids, classes, lengths ``[n]``."""
Numbers = Annotated[Tensor, Carries((torch.int64,), 1)]
"""Layers or positions ``[n]``."""
Reals = Annotated[Tensor, Carries(_FP32, 1)]
Rows = Annotated[Tensor, Carries(_FLOATS, 2)]
HeadRows = Annotated[Tensor, Carries(_FLOATS, 3)]
PlainRows = Annotated[Tensor, Carries(_FP32, 2)]
Cache = Annotated[Tensor, Carries(_FLOATS, 5)]
Exposed = Annotated[Tensor, Carries((torch.int8, torch.int16, torch.float32), 2)]
Masked = Annotated[Tensor, Carries((torch.int64, torch.float32), 2)]


@dataclass(frozen=True, repr=False, eq=False)
class Message:
    """Base of all messages; its repr shows shapes only, never values.

    ``per_stream`` names the tensors whose first dimension counts the streams of a request.
    """

    per_stream: ClassVar[tuple[str, ...]] = ()

    def of_stream(self, index: int) -> Self:
        """The message as it would be were stream ``index`` the only one."""
        return replace(self, **{name: getattr(self, name)[index : index + 1] for name in self.per_stream})

    @property
    def nbytes(self) -> int:
        """Payload bytes: those of the tensors."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, Tensor))

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

    ids: Ids
    max_new_tokens: int


@dataclass(frozen=True, repr=False, eq=False)
class HiddenStates(Message):
    """Hidden states ``[rows, width]`` of positions ``position ..`` at the cut; answered by the next token."""

    hidden: Rows
    position: int


@dataclass(frozen=True, repr=False, eq=False)
class StartDecode(Message):
    """SMD: begin to decode ``B`` streams of one request.

    Attributes:
        first: the first generated token of each stream ``[B]`` (int32).
        public: leading prompt tokens that are no secret ``[p]`` (int32), often none; their keys are the provider's.
        sampling: temperature and top-p ``[2]`` (fp32); temperature 0 is the greedy choice.
        request: number that every later message of the request repeats.
        position: absolute position of ``first``, which tells the prompts' length.
        max_new_tokens: tokens to generate after ``first``.
        seed: of the request's sampling.
        turn: 0 starts a conversation; a later turn goes on after the keys the provider kept of the earlier ones.
    """

    per_stream: ClassVar[tuple[str, ...]] = ("first",)

    first: Ids
    public: Ids
    sampling: Reals
    request: int
    position: int
    max_new_tokens: int
    seed: int
    turn: int


@dataclass(frozen=True, repr=False, eq=False)
class Query(Message):
    """SMD: queries of one layer ``[B, heads, head_dim]``, after rotary embedding and QK-norm."""

    per_stream: ClassVar[tuple[str, ...]] = ("q",)

    q: HeadRows
    request: int
    layer: int
    position: int


@dataclass(frozen=True, repr=False, eq=False)
class PartialAttention(Message):
    """SMD: the answer to a query, over the vault's keys.

    Row maximum ``m [B, heads]``, sum ``g [B, heads]`` (fp32), attention ``a [B, heads, head_dim]``; request, layer and
    position are those of the query.
    """

    per_stream: ClassVar[tuple[str, ...]] = ("m", "g", "a")

    m: PlainRows
    g: PlainRows
    a: HeadRows
    request: int
    layer: int
    position: int


@dataclass(frozen=True, repr=False, eq=False)
class SummedAttention(Message):
    """SMD: the answer to a query without its row maximum, ``l = m + log g`` ``[B, heads]`` in place of both.

    ``l`` is minus infinity where the query saw no key; attention ``a [B, heads, head_dim]`` as in
    :class:`PartialAttention`.
    """

    per_stream: ClassVar[tuple[str, ...]] = ("log_weight", "a")

    log_weight: PlainRows
    a: HeadRows
    request: int
    layer: int
    position: int


@dataclass(frozen=True, repr=False, eq=False)
class MergeQuery(Query):
    """SMD, merged at the vault: queries with the provider's own attention, ``l`` ``[B, heads]`` and ``A``."""

    per_stream: ClassVar[tuple[str, ...]] = ("q", "log_weight", "a")

    log_weight: PlainRows
    a: HeadRows


@dataclass(frozen=True, repr=False, eq=False)
class MergedRows(Message):
    """SMD, merged at the vault: the attention ``[B, heads, head_dim]`` over the keys of both sides."""

    per_stream: ClassVar[tuple[str, ...]] = ("a",)

    a: HeadRows
    request: int
    layer: int
    position: int


@dataclass(frozen=True, repr=False, eq=False)
class AttentionInputs(Message):
    """Split with secret row order: unrotated ``q [rows, heads, d]``, ``k``, ``v [rows, kv_heads, d]`` of one layer."""

    q: HeadRows
    k: HeadRows
    v: HeadRows
    layer: int


@dataclass(frozen=True, repr=False, eq=False)
class AttentionContext(Message):
    """Split with secret row order: the attention output ``[rows, heads, d]`` of one layer."""

    context: HeadRows


@dataclass(frozen=True, repr=False, eq=False)
class Tokens(Message):
    """Generated token ids (int32): one of each stream, ``[B]``."""

    per_stream: ClassVar[tuple[str, ...]] = ("ids",)

    ids: Ids


@dataclass(frozen=True, repr=False, eq=False)
class Done(Message):
    """An empty answer."""


@dataclass(frozen=True, repr=False, eq=False)
class NextHidden(Message):
    """SMD with inner layers: ask the vault for the states of the newest tokens after its layers (``HiddenStates``)."""

    request: int
    position: int


@dataclass(frozen=True, repr=False, eq=False)
class OutputRequest(Message):
    """SMD conversation: ask the provider for the keys and values it holds (``OutputKeys``)."""

    request: int


@dataclass(frozen=True, repr=False, eq=False)
class OutputKeys(Message):
    """SMD conversation: the provider's keys and values ``[layers, streams, kv_heads, rows, head_dim]``.

    ``layers [layers]`` and ``positions [rows]`` (absolute) are int64.
    """

    layers: Numbers
    k: Cache
    v: Cache
    positions: Numbers


@dataclass(frozen=True, repr=False, eq=False)
class ExposedLayer(Message):
    """Weight decomposition, at deployment: rows of the exposed weights of one fused product, in order.

    A product's matrix ``[m, n]`` is what its messages carry, row under row.

    Attributes:
        weights: integers ``[rows, n]`` (int16 or int8), or float weights (fp32).
        scale: of each row ``[rows]`` (fp32): the exposed weight is ``scale * weights``.
        product: number of the product.
    """

    weights: Exposed
    scale: Reals
    product: int


@dataclass(frozen=True, repr=False, eq=False)
class MaskedInput(Message):
    """Weight decomposition: the masked fixed-point input ``[rows, n]`` of one product, residues (int64).

    ``use`` is the number of the first row's mask; a float mask (a demonstration of what not to do) sends fp32.
    """

    x: Masked
    product: int
    use: int


@dataclass(frozen=True, repr=False, eq=False)
class MaskedOutput(Message):
    """Weight decomposition: the product ``[rows, m]`` of a masked input, residues; product and use are the input's."""

    y: Masked
    product: int
    use: int


@dataclass(frozen=True, repr=False, eq=False)
class LowRankInput(Message):
    """Weight decomposition, boundary visibility: a product's plain input ``[rows, n]`` (fp32)."""

    x: PlainRows
    product: int


@dataclass(frozen=True, repr=False, eq=False)
class LowRankOutput(Message):
    """Weight decomposition, boundary visibility: the secret part's product ``[rows, m]`` (fp32)."""

    y: PlainRows
    product: int


@dataclass(frozen=True, repr=False, eq=False)
class TuningRows(Message):
    """Private tuning: texts that the provider tunes its model on, one after the other.

    Attributes:
        ids: token ids of all texts, or what a code made of them ``[n]`` (int32).
        lengths: tokens of each text ``[r]`` (int32).
        labels: class of each text ``[r]`` (int32); empty for next-token tuning.
        held_out: 1 for texts that only decide when to stop and which state is best.
    """

    ids: Ids
    lengths: Ids
    labels: Ids
    held_out: int


@dataclass(frozen=True, repr=False, eq=False)
class Tune(Message):
    """Private tuning: train on the rows that were sent, then answer (``Done``).

    Attributes:
        words: token id that stands for each class ``[classes]`` (int32), or empty: a head of its own.
        classes: number of classes; 0 tunes the next token.
        seed: of initialisation and order.
    """

    words: Ids
    classes: int
    seed: int


@dataclass(frozen=True, repr=False, eq=False)
class Progress(Message):
    """Private tuning: a step was done; keeps a long request alive."""

    step: int
    steps: int


@dataclass(frozen=True, repr=False, eq=False)
class ClassifyRows(Message):
    """Private inference: texts to classify, ``ids [n]`` and ``lengths [r]`` as in ``TuningRows``."""

    ids: Ids
    lengths: Ids


@dataclass(frozen=True, repr=False, eq=False)
class TuningVectors(Message):
    """Private tuning: as ``TuningRows``, with a vector of each token in the place of its id.

    Attributes:
        vectors: of the tokens of all texts ``[n, width]``.
        lengths: tokens of each text ``[r]`` (int32).
        labels: class of each text ``[r]`` (int32).
        held_out: 1 for texts that only decide when to stop and which state is best.
    """

    vectors: Rows
    lengths: Ids
    labels: Ids
    held_out: int


@dataclass(frozen=True, repr=False, eq=False)
class ClassifyVectors(Message):
    """Private inference: texts to classify, ``vectors [n, width]`` and ``lengths [r]`` as in ``TuningVectors``."""

    vectors: Rows
    lengths: Ids


@dataclass(frozen=True, repr=False, eq=False)
class Labels(Message):
    """Private inference: the class of each text ``[r]`` (int32)."""

    labels: Ids


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
    NextHidden,
    OutputRequest,
    OutputKeys,
    ExposedLayer,
    MaskedInput,
    MaskedOutput,
    LowRankInput,
    LowRankOutput,
    TuningRows,
    Tune,
    Progress,
    ClassifyRows,
    Labels,
    SummedAttention,
    MergeQuery,
    MergedRows,
    TuningVectors,
    ClassifyVectors,
)


def token_tensor(ids: list[int] | tuple[int, ...]) -> Tensor:
    """Token ids as they cross the wire: int32 ``[n]``."""
    return torch.tensor(ids, dtype=torch.int32)
