"""A linear inverse of the first blocks, fitted to public text: which tokens does a state look like by itself?

Ridge regression from states at a layer, with the noise the defense adds, to the embeddings of their tokens. It proposes
candidates that a language model would not expect: names, numbers. (States without noise have ``models.token_lens``.)
"""

import torch
from torch import Tensor

from attacks.prompts.vocab_matching.public_states import PublicStates
from smd_research.core.seeds import generator
from smd_research.mechanisms.releases import Release
from smd_research.models.token_lens import RidgeMap


class LinearInverse:
    """Maps states after some blocks to the nearest vocabulary entries.

    Args:
        seen: what the map is fitted to.
        table: the public embedding ``[vocab, width]``.
        sigma: standard deviation of the noise on each coordinate; enters as the ridge.
        factor: by which a message's states are scaled before the noise.
        release: what the client sends of its states, noise included, where that is more.
    """

    def __init__(
        self, seen: PublicStates, table: Tensor, sigma: float = 0.0, factor: float = 1.0, release: Release | None = None
    ) -> None:
        self._table, self._factor = table.float(), factor
        states, targets = torch.cat(seen.states), self._table[torch.cat(seen.ids)]
        if release is not None:
            states = release.release(states, generator(0, "linear inverse"))
        # noise of this scale adds its variance to the inputs' second moments
        ridge = max((sigma / factor) ** 2, 1e-6 * float((states - states.mean(0)).var()))
        self._map = RidgeMap.fitted(states, targets, ridge)

    def nearest(self, state: Tensor, count: int) -> Tensor:
        """The ``count`` vocabulary entries whose embeddings are nearest to the image of a state ``[width]``."""
        distances = (self._table - self._map(state / self._factor)).norm(dim=-1)
        return torch.topk(distances, min(count, len(distances)), largest=False).indices
