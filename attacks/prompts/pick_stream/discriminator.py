"""A classifier that has seen many line-ups whose real prompt it knew: made from public text with the known sampler."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from attacks.prompts.pick_stream.evidence import Evidence, Witness
from attacks.prompts.pick_stream.features import features
from attacks.prompts.pick_stream.lineup import Lineup
from smd_research.core.errors import PromptError
from smd_research.core.seeds import generator
from smd_research.core.wrapper import BARE, Wrapper
from smd_research.data.prompts import TokenSpan, moved
from smd_research.mechanisms.decoys.quantised_sampling import sample
from smd_research.models.bundle import Bundle
from smd_research.training.choice import ChoiceModel, train_choice

# Fewer line-ups than this teach nothing.
_FEWEST = 10


class Discriminator:
    """Trains on line-ups of public documents, cut to about the length of the prompt under attack.

    Args:
        bundle: the served model.
        witness: gathers the evidence, here as in the attack.
        corpus: token ids of public documents.
        spans: the secrets marked in each; empty where none are marked.
        sets: line-ups to train on.
        wrapper: public tokens around every prompt.
    """

    def __init__(
        self,
        bundle: Bundle,
        witness: Witness,
        corpus: Sequence[Sequence[int]],
        spans: Sequence[Sequence[TokenSpan]],
        sets: int,
        wrapper: Wrapper = BARE,
    ) -> None:
        self._bundle = bundle
        self._witness = witness
        self._documents = list(zip(corpus, spans, strict=True)) if spans else []
        self._sets, self._wrapper = sets, wrapper
        self._models: dict[int, ChoiceModel | None] = {}

    def weights(self, evidence: Evidence) -> Tensor:
        """Log weights ``[streams]``; equal where there was nothing to learn from."""
        length = evidence.lineup.ids.shape[1]
        if length not in self._models:
            self._models[length] = self._train(length, evidence.lineup.size)
        model = self._models[length]
        if model is None:
            return torch.zeros(evidence.lineup.size)
        with torch.inference_mode():
            found: Tensor = model(features(evidence, self._bundle))
        return found

    def _train(self, length: int, size: int) -> ChoiceModel | None:
        rng = generator(0, "discriminator", length, size)
        seen: list[Tensor] = []
        right: list[int] = []
        for ids, spans in self._documents:
            if len(seen) == self._sets:
                break
            own = length - len(self._wrapper)
            secrets = moved([s for s in spans if s.end <= own], len(self._wrapper.head))
            lineup = self._lineup(self._wrapper.around(ids[:own]), secrets, rng)
            if lineup is None:
                continue
            order = torch.from_numpy(rng.permutation(lineup.size))
            shuffled = Lineup(lineup.ids[order])
            seen.append(features(self._witness.evidence(shuffled), self._bundle))
            right.append(int((order == 0).nonzero()))
        if len(seen) < _FEWEST:
            return None
        return train_choice(torch.stack(seen), torch.tensor(right), seed=0)

    def _lineup(self, ids: Sequence[int], spans: Sequence[TokenSpan], rng: np.random.Generator) -> Lineup | None:
        """A public document among its fakes, the real one first; None where the sampler refuses it."""
        if not spans:
            return None
        try:
            decoys = sample(self._bundle, ids, spans, self._witness.quantiser, rng)
        except PromptError:
            return None
        return Lineup(decoys.ids.cpu())
