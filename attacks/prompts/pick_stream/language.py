"""Language models that judge a line-up: the served one, and one tuned to the domain, which is stronger."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from attacks.prompts.pick_stream.lineup import Lineup
from smd_research.models.attention import LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel
from smd_research.training.trigram import Trigram

HELD_OUT = 40
_EM_STEPS = 20


class ServedModel:
    """A causal language model over a line-up: one forward, the common opening computed once."""

    def __init__(self, bundle: Bundle) -> None:
        self._device = bundle.device
        self._model = HookedModel(bundle)

    @torch.inference_mode()
    def predictions(self, lineup: Lineup) -> Tensor:
        """Log probabilities ``[streams, n, vocab]`` of the token at each position, given those before it.

        Nothing comes before the first token: its row is uniform.
        """
        ids, attention = lineup.ids.to(self._device), LocalAttention()
        shared = min(lineup.first, ids.shape[1] - 1)
        positions = torch.arange(ids.shape[1], device=self._device)
        parts = []
        if shared:
            opening = self._model.forward(attention, positions[:shared], ids=ids[:1, :shared])
            attention.store.select(torch.zeros(len(ids), dtype=torch.long, device=self._device))
            parts.append(opening.expand(len(ids), -1, -1))
        parts.append(self._model.forward(attention, positions[shared:], ids=ids[:, shared:]))
        logits = torch.cat(parts, 1)[:, :-1].float().cpu()
        uniform = torch.zeros_like(logits[:, :1])
        return torch.log_softmax(torch.cat([uniform, logits], 1), -1)


def of_tokens(predictions: Tensor, lineup: Lineup) -> Tensor:
    """Log probabilities ``[streams, n]`` of the line-up's own tokens under ``predictions [streams, n, vocab]``."""
    return predictions.gather(-1, lineup.ids[..., None])[..., 0]


class DomainModel:
    """A trigram model of public text of the same kind, interpolated with a language model.

    The weight of each is fitted on public documents that the trigram did not count (expectation maximisation), so that
    the mixture is at least as good as either on text of the domain: an attacker stronger than the sampler.

    Args:
        corpus: token ids of public documents.
        model: what the trigram is mixed with.
        vocabulary: number of token ids.
    """

    def __init__(self, corpus: Sequence[Sequence[int]], model: ServedModel, vocabulary: int) -> None:
        documents = [list(document) for document in corpus if len(document) > 1]
        held_out = documents[:: max(2, len(documents) // HELD_OUT)]
        counted = [document for i, document in enumerate(documents) if i % max(2, len(documents) // HELD_OUT)]
        self._trigram = Trigram(counted, vocabulary) if len(counted) > 1 else None
        self.weight = self._fit(held_out, model) if self._trigram else 0.0

    def _fit(self, documents: Sequence[list[int]], model: ServedModel) -> float:
        """The trigram's weight that explains held-out documents best."""
        ours, theirs = [], []
        for document in documents:
            lineup = Lineup(torch.tensor([document]))
            theirs.append(of_tokens(model.predictions(lineup), lineup)[0, 1:].double())
            ours.append(self._counted(lineup)[0, 1:])
        one, two = torch.cat(ours).exp(), torch.cat(theirs).exp()
        weight = 0.5
        for _ in range(_EM_STEPS):
            weight = float((weight * one / (weight * one + (1 - weight) * two)).mean())
        return weight

    def _counted(self, lineup: Lineup) -> Tensor:
        """The trigram's log probabilities ``[streams, n]``; 0 for the first token."""
        assert self._trigram is not None
        rows = [np.concatenate([[0.0], self._trigram.log_probabilities(row)]) for row in lineup.ids.tolist()]
        return torch.from_numpy(np.stack(rows))

    def of_tokens(self, served: Tensor, lineup: Lineup) -> Tensor:
        """Log probabilities ``[streams, n]`` of the line-up's tokens, given the other model's ``served``."""
        if self._trigram is None:
            return served
        ours = self._counted(lineup) + np.log(max(self.weight, 1e-12))
        return torch.logaddexp(ours, served.double() + np.log(max(1 - self.weight, 1e-12))).float()
