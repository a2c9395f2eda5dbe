"""What is public alone: prompt length, output tokens and a corpus of the same kind of text.

Reads no protocol message, so it is the level any attack on the protocol has to beat. The guess is the corpus document
whose opening, continued by the public model, explains the observed output best; per-position candidates come from the
other shortlisted openings.
"""

from collections import Counter

import numpy as np
import torch
from torch.nn import functional

from attacks.base import PromptAttack, Public
from attacks.baselines.random import public_length
from smd_research.boundary import AdversaryView
from smd_research.core.guess import Guess, Spent


class Prior(PromptAttack):
    """Retrieval from the public corpus, ranked by the likelihood of the output.

    Args:
        shortlist: openings whose likelihood is computed.
    """

    def __init__(self, shortlist: int = 16) -> None:
        self._size = shortlist

    def fit(self, public: Public) -> None:
        super().fit(public)
        frequency = Counter(token for document in public.corpus for token in set(document))
        total = len(public.corpus) + 1
        self._rarity = {token: float(np.log(total / (1 + count))) for token, count in frequency.items()}
        vocab = public.bundle.geometry.vocab
        counts = np.bincount([t for d in public.corpus for t in d] or [0], minlength=vocab)
        self._common = int(counts.argmax())

    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        length = public_length(view)
        output = view.output_ids
        long_enough = [document[:length] for document in self.public.corpus if len(document) >= length]
        if not long_enough:
            return Guess((self._common,) * length)
        wanted = set(output)
        overlap = [sum(self._rarity.get(t, 0.0) for t in wanted & set(opening)) for opening in long_enough]
        order = np.argsort(np.asarray(overlap) + 1e-9 * rng.random(len(overlap)))[::-1][: self._size]
        openings = [long_enough[i] for i in order]
        scores = self._explains(openings, output) if output else np.zeros(len(openings))
        best = [openings[i] for i in np.argsort(-scores)]
        ranked = tuple(tuple(dict.fromkeys(opening[p] for opening in best)) for p in range(length))
        return Guess(tuple(best[0]), ranked, spent=Spent(candidates=len(best)))

    @torch.inference_mode()
    def _explains(self, openings: list[tuple[int, ...]], output: tuple[int, ...]) -> np.ndarray:
        """Log likelihood of the output after each opening, ``[openings]``."""
        bundle = self.public.bundle
        ids = torch.tensor([[*opening, *output] for opening in openings], device=bundle.device)
        logits = bundle.model(input_ids=ids, use_cache=False).logits[:, len(openings[0]) - 1 : -1].float()
        target = ids[:, len(openings[0]) :]
        loss = functional.cross_entropy(logits.transpose(1, 2), target, reduction="none")
        return -loss.sum(1).cpu().numpy()
