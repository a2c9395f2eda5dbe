"""States of public text at a layer: a linear inverse is fitted to them, a message's clipping guessed from them."""

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
    """Documents run through the first blocks of the public model.

    Attributes:
        ids: token ids of each document ``[tokens]``.
        states: after the blocks ``[tokens, width]``, fp32.
    """

    ids: tuple[Tensor, ...]
    states: tuple[Tensor, ...]

    @classmethod
    def of(cls, public: Public, layer: int) -> "PublicStates":
        """The first documents of the corpus, their first tokens."""
        device = public.bundle.device
        ids = [torch.tensor(document[:TOKENS], device=device) for document in public.corpus[:DOCUMENTS]]
        return cls(tuple(ids), tuple(states_after(public.bundle, layer, ids)))

    def factor(self, clip: float, rows: int) -> tuple[float, float]:
        """By what a message of so many rows is scaled when it is clipped as one: mean and standard deviation.

        Args:
            clip: norm allowed to a row on average.
            rows: of the message.
        """
        norms = torch.stack([one[:rows].norm() / len(one[:rows]) ** 0.5 for one in self.states])
        factors = (clip / norms).clamp_max(1.0)
        spread = float(factors.std()) if len(factors) > 1 else float(factors)
        return float(factors.mean()), max(spread, _LEAST_SPREAD)
