"""A client as anyone can run it: the public model's first blocks, the public release, draws of one's own."""

import numpy as np
import torch
from torch import Tensor

from smd_research.mechanisms.releases.base import Release
from smd_research.mechanisms.split_inference import SplitParameters
from smd_research.models.attention import LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel
from smd_research.models.sources import DTYPES


class SimulatedClient:
    """What a client sends for texts.

    Args:
        bundle: the public model.
        cut: where it is cut, and the type of what crosses.
        release: what happens to the states before they cross.
    """

    def __init__(self, bundle: Bundle, cut: SplitParameters, release: Release) -> None:
        self._model = HookedModel(bundle, None, cut.layer)
        self._release, self._wire = release, DTYPES[cut.wire_dtype]

    def states(self, ids: Tensor) -> Tensor:
        """States at the cut ``[b, n, width]`` in single precision, for texts ``[b, n]``."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        # cloned outside inference mode, so that one can learn from them
        return self._model.forward(LocalAttention(), positions, ids=ids).clone().float()

    @torch.no_grad()
    def sent(self, ids: Tensor, rng: np.random.Generator) -> Tensor:
        """What crosses ``[b, n, width]`` in single precision, for texts ``[b, n]``: each a message of its own."""
        messages = [self._release.release(states, rng) for states in self.states(ids)]
        return torch.stack(messages).to(self._wire).float()
