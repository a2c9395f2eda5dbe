"""What an attacker expects of a text before it has seen anything of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smd_research.mechanisms.privacy.survival import token_frequencies
from smd_research.models.bundle import Bundle
from smd_research.models.extension import LanguagePrior


@dataclass(frozen=True, eq=False)
class Language:
    """The public language model and the public text.

    Attributes:
        bundle: the model.
        unigram: log probabilities of tokens in public text ``[vocab]``.
        opening: of the first token of one ``[vocab]``.
        share: of the model in their mixture.
    """

    bundle: Bundle
    unigram: Tensor
    opening: Tensor
    share: float

    @classmethod
    def of(cls, bundle: Bundle, corpus: Sequence[Sequence[int]], share: float) -> "Language":
        """Count public documents."""
        vocab = bundle.geometry.vocab
        counts = token_frequencies(corpus, vocab) + 1.0
        first = token_frequencies([document[:1] for document in corpus], vocab) + counts / counts.sum()
        unigram, opening = (torch.from_numpy(np.log(one / one.sum())).float() for one in (counts, first))
        return cls(bundle, unigram.to(bundle.device), opening.to(bundle.device), share)

    def mixed(self, model: Tensor) -> Tensor:
        """Log of the mixture of the model's laws ``[..., vocab]`` with the unigram."""
        return torch.logaddexp(model + float(np.log(self.share)), self.unigram + float(np.log1p(-self.share)))

    def reader(self, before: Sequence[int]) -> tuple[LanguagePrior, Tensor]:
        """A batch of one hypothesis that has read public tokens, and the law ``[1, vocab]`` of what follows."""
        model, law = LanguagePrior(self.bundle), self.opening[None]
        for token in before:
            law = self.mixed(model.step(torch.tensor([token], device=self.bundle.device)))
        return model, law
