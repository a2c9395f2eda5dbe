"""A text written anew by a language model that has it in its context: DP-Prompt's form (arXiv 2310.16111)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smd_research.core.errors import PromptError
from smd_research.core.guarantee import Guarantee
from smd_research.mechanisms.rewriting.base import Rewriter
from smd_research.models.bundle import Bundle
from smd_research.models.decoding import StockDecoder


@dataclass(frozen=True, eq=False)
class SampledRewriter(Rewriter):
    """Reads ``before, text, behind`` and writes a text of its own, each token drawn from the clipped softmax.

    DP-Prompt asks an instructed model for a paraphrase. What stands around the text is a template of the user's here;
    without one the text's end follows it, and the model writes what it thinks comes next: a small model that was never
    taught to paraphrase does not. The mechanism and its promise are the same (reconstructed).

    Special tokens at the beginning of a text pass, and are written first.

    Attributes:
        bundle: the public model.
        before: token ids in front of the text.
        behind: token ids behind it.
        anew: whether the model reads the special tokens at the beginning of the text again behind all that, as those of
            a new text.
        length: tokens that are written; None writes as many as the text has.
    """

    bundle: Bundle
    before: tuple[int, ...]
    behind: tuple[int, ...]
    anew: bool
    length: int | None

    @property
    def vocab(self) -> int:
        return self.bundle.geometry.vocab

    def head(self, ids: Sequence[int]) -> int:
        """How many special tokens begin a text."""
        special = self.bundle.special_ids
        return next((place for place, token in enumerate(ids) if token not in special), len(ids))

    def drawn(self, sent: Sequence[int]) -> list[int]:
        return list(range(self.head(sent), len(sent)))

    def rewrite(self, ids: Sequence[int], rng: np.random.Generator) -> list[int]:
        head = self.head(ids)
        count = len(ids) - head if self.length is None else self.length
        self._check(len(ids), head + count)
        decoder, written = StockDecoder(self.bundle), list(ids[:head])
        feed = [*self.before, *ids, *self.behind, *(written if self.anew else ())]
        for _ in range(count):
            logits = decoder.step(torch.tensor([feed], device=self.bundle.device))
            feed = self.softmax.draw(logits[None], rng).tolist()
            written += feed
        return written

    def logits(self, texts: Tensor, sent: Sequence[int]) -> Tensor:
        return self.readings(texts, sent)[1]

    @torch.inference_mode()
    def readings(self, texts: Tensor, sent: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Logits of the tokens of the texts after their first ``[texts, n - 1, vocab]``, and of what was drawn.

        The first are the model's own expectation of the text, which costs nothing beside the second
        ``[texts, drawn, vocab]``.
        """
        self._check(texts.shape[1], len(sent))
        around = [
            torch.tensor(list(part), dtype=torch.long, device=texts.device).expand(len(texts), -1)
            for part in (self.before, self.behind, sent if self.anew else sent[self.head(sent) :])
        ]
        ids = torch.cat([around[0], texts, around[1], around[2]], 1)
        drawn = len(sent) - self.head(sent)
        logits = self.bundle.model(input_ids=ids, use_cache=False).logits
        begin = len(self.before)
        return logits[:, begin : begin + texts.shape[1] - 1], logits[:, ids.shape[1] - drawn - 1 : -1]

    def _check(self, length: int, written: int) -> None:
        whole, context = len(self.before) + length + len(self.behind) + written, self.bundle.geometry.context
        if whole > context:
            raise PromptError(
                f"a text of {length} tokens, what stands around it and {written} rewritten ones are {whole}, more than "
                f"the context of {context} of {self.bundle.name}: lower prompt_tokens="
            )

    def guarantee(self) -> Guarantee | None:
        neighbours = "of the same length" if self.length is None else "of any length"
        return self.softmax.guarantee(
            f"replacement of the whole text by any other {neighbours} with the same special tokens in front",
            "DP-Prompt, Utpala et al., Findings EMNLP 2023, section 3; the template is the user's",
            "exact: largest log ratio of the laws of all tokens between texts (mechanisms.rewriting.audit)",
        )
