"""A linear inverse of the first blocks, fitted to public text: which tokens does a state look like by itself?

Ridge regression from states at a layer, with the noise the defense adds, to the embeddings of their tokens. Too weak to
be an attack where exact matching works, it proposes candidates that a language model would not expect: names, numbers.
"""

import torch
from torch import Tensor

from attacks.base import Public
from smd_research.core.seeds import generator
from smd_research.mechanisms.releases import Release
from smd_research.models.attention import LocalAttention
from smd_research.models.hooked import HookedModel

DOCUMENTS = 128
TOKENS = 64


class LinearInverse:
    """Maps states after ``layer`` blocks to the nearest vocabulary entries.

    Args:
        public: what the adversary knows; its corpus is what the map is fitted to.
        layer: number of blocks below the states.
        sigma: standard deviation of the noise on each coordinate; enters as the ridge.
        release: what the client sends of its states, noise included, where that is more.
    """

    def __init__(self, public: Public, layer: int, sigma: float, release: Release | None = None) -> None:
        self._table = public.bundle.embedding.float()
        states, ids = self._examples(public, layer)
        if release is not None:
            states = release.release(states, generator(0, "linear inverse"))
        targets = self._table[ids]
        self._centre = states.mean(0)
        self._offset = targets.mean(0)
        inputs = states - self._centre
        # noise of this scale adds len(inputs) * sigma^2 to the diagonal of the inputs' second moments
        ridge = len(inputs) * max(sigma**2, 1e-6 * float(inputs.var()))
        gram = inputs.T @ inputs + ridge * torch.eye(inputs.shape[1], device=inputs.device)
        self._map = torch.linalg.solve(gram, inputs.T @ (targets - self._offset))

    @staticmethod
    @torch.inference_mode()
    def _examples(public: Public, layer: int) -> tuple[Tensor, Tensor]:
        """States ``[rows, width]`` of public text and the token ids behind them ``[rows]``."""
        model, device = HookedModel(public.bundle, None, layer), public.bundle.device
        states, ids = [], []
        for document in public.corpus[:DOCUMENTS]:
            row = torch.tensor([list(document[:TOKENS])], device=device)
            positions = torch.arange(row.shape[1], device=device)
            states.append(model.forward(LocalAttention(), positions, ids=row)[0].float())
            ids.append(row[0])
        return torch.cat(states), torch.cat(ids)

    def nearest(self, state: Tensor, count: int) -> Tensor:
        """The ``count`` vocabulary entries whose embeddings are nearest to the image of a state ``[width]``."""
        image = (state - self._centre) @ self._map + self._offset
        distances = (self._table - image).norm(dim=-1)
        return torch.topk(distances, min(count, len(distances)), largest=False).indices
