"""States of public text at a layer: a linear inverse is fitted to them, a message's clipping guessed from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.base import Public
from smd_research.models.token_lens import states_after

DOCUMENTS = 128
TOKENS = 64
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class PublicStates:
    """Documents run through the first blocks of the public model, in what stands around a prompt.

    Attributes:
        ids: token ids of each document ``[tokens]``.
        states: after the blocks ``[tokens, width]``, fp32.
    """

    ids: tuple[Tensor, ...]
    states: tuple[Tensor, ...]

    @classmethod
    def of(cls, public: Public, layer: int) -> "PublicStates":
        """The first documents of the corpus, their first tokens."""
        documents = [document[:TOKENS] for document in public.corpus[:DOCUMENTS]]
        messages = _messages(public, layer, documents)
        states = tuple(one[public.wrapper.place(len(one))] for one in messages)
        return cls(tuple(torch.tensor(document, device=public.bundle.device) for document in documents), states)


def clipping(public: Public, layer: int, clip: float, rows: int) -> tuple[float, float]:
    """By what a message of so many rows is scaled when it is clipped as one: mean and standard deviation.

    Norms differ by place, the first row's may exceed all others together: so public messages are as long as this one,
    as far as there are documents of that length.

    Args:
        public: what the adversary knows, its corpus not empty.
        layer: blocks before the cut.
        clip: norm allowed to a row on average.
        rows: of the message.
    """
    tokens = max(rows - len(public.wrapper), 1)
    enough = [document for document in public.corpus if len(document) >= tokens] or public.corpus
    count = max(1, min(DOCUMENTS, DOCUMENTS * TOKENS // tokens))
    messages = _messages(public, layer, [document[:tokens] for document in enough[:count]])
    factors = (clip / torch.stack([one.norm() / len(one) ** 0.5 for one in messages])).clamp_max(1.0)
    spread = float(factors.std()) if len(factors) > 1 else float(factors)
    return float(factors.mean()), max(spread, _LEAST_SPREAD)


def _messages(public: Public, layer: int, documents: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """States ``[rows, width]`` of each document in its wrapper."""
    device = public.bundle.device
    return states_after(
        public.bundle, layer, [torch.tensor(public.wrapper.around(one), device=device) for one in documents]
    )
