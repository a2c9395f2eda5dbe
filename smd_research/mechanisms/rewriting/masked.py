"""A text whose tokens are drawn anew one by one by a masked model that has it in sight: DP-MLM's form."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smd_research.core.errors import PromptError
from smd_research.core.guarantee import Guarantee
from smd_research.mechanisms.rewriting.base import Rewriter
from smd_research.models.pair_reader import PairReader

_ROWS = 512
"""Texts read at once."""


@dataclass(frozen=True, eq=False)
class MaskedRewriter(Rewriter):
    """Draws each token from the clipped softmax of a masked model that reads the text, then the text with a mask there.

    DP-MLM (Meisenbacher et al., Findings ACL 2024, arXiv 2407.00637). Every draw sees the whole original text, so that
    epsilons add up over all of them, which the paper's per-word epsilon leaves open.

    Attributes:
        reader: the public masked model.
        passed: tokens that pass unchanged, special ones among them; the same for every text. None of them is ever
            drawn, so that what was sent tells which places passed.
    """

    reader: PairReader
    passed: frozenset[int]

    @property
    def vocab(self) -> int:
        return len(self.reader.bias)

    def drawn(self, sent: Sequence[int]) -> list[int]:
        return [place for place, token in enumerate(sent) if token not in self.passed]

    def conditions(self, sent: Sequence[int]) -> tuple[int, ...]:
        """The places alone: no draw sees another."""
        return tuple(self.drawn(sent))

    def rewrite(self, ids: Sequence[int], rng: np.random.Generator) -> list[int]:
        self._check(len(ids))
        places, written = self.drawn(ids), list(ids)
        text = torch.tensor([list(ids)], device=self.reader.bias.device)
        for some in _chunks(places):
            tokens = self.softmax.draw(self.read(text, torch.tensor(some))[0], rng)
            for place, token in zip(some, tokens.tolist(), strict=True):
                written[place] = token
        return written

    def logits(self, texts: Tensor, sent: Sequence[int]) -> Tensor:
        return self.read(texts, torch.tensor(self.drawn(sent), dtype=torch.long))

    def logits_at(self, texts: Tensor, sent: Sequence[int], place: int) -> Tensor:
        return self.read(texts, torch.tensor([place]))[:, 0]

    def read(self, texts: Tensor, places: Tensor) -> Tensor:
        """Logits of some places of each text ``[texts, places, vocab]``; each is masked alone."""
        self._check(texts.shape[1])
        rows = texts.repeat_interleave(len(places), 0)
        asked = places.to(texts.device).repeat(len(texts))
        found = [
            self.reader.one_masked(*some)
            for some in zip(torch.split(rows, _ROWS), torch.split(asked, _ROWS), strict=True)
        ]
        return torch.cat(found).view(len(texts), len(places), self.vocab)

    def _check(self, length: int) -> None:
        if length > self.reader.shape.tokens:
            raise PromptError(
                f"a text of {length} tokens is longer than the {self.reader.shape.tokens} that the masked model reads: "
                "lower prompt_tokens=, or raise defense.reader_tokens="
            )

    def guarantee(self) -> Guarantee | None:
        return self.softmax.guarantee(
            "replacement of the whole text by any other of the same length with the same tokens that pass in the same "
            "places",
            "DP-MLM, Meisenbacher et al., Findings ACL 2024; composition over the text is ours",
            "exact: largest log ratio of the laws of all tokens between texts (mechanisms.rewriting.audit)",
        )


def _chunks(places: list[int]) -> list[list[int]]:
    return [places[start : start + _ROWS] for start in range(0, len(places), _ROWS)]
