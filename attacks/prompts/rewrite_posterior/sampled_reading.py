"""Reading a text that was written freely with another in sight."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from attacks.text_context import Context
from smd_research.core.guess import Guess, Spent
from smd_research.mechanisms.rewriting.sampled import SampledRewriter

_RANKED = 10
_OPENINGS = 0.5  # of the prior, that the text opens as one of the public documents does


@dataclass(eq=False)
class _Weighed:
    """Texts with their weights in the posterior.

    Attributes:
        rewriter: the public mechanism.
        language: the prior.
        sent: what was seen.
        texts: that were weighed ``[texts, n]``, a block at a time.
        weights: log posterior of each, up to a constant.
        expected: the model's logits of the next token after each prefix of the best text so far ``[n - 1, vocab]``.
    """

    rewriter: SampledRewriter
    language: Context
    sent: Sequence[int]
    texts: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    expected: Tensor = field(default_factory=lambda: torch.empty(0))

    def __len__(self) -> int:
        return sum(map(len, self.texts))

    def add(self, texts: Tensor, log_prior: float | None = None) -> None:
        """Weigh texts ``[texts, n]``; their prior is that of any other text where none is given."""
        first = self.rewriter.head(self.sent)
        target = torch.tensor(list(self.sent[first:]), device=texts.device)
        for part in self.rewriter.parts(texts, len(self.sent) + texts.shape[1]):
            own, written = self.rewriter.readings(part, self.sent)
            laws = self.rewriter.softmax.log_law(written)
            weights = laws.gather(-1, target.expand(len(part), -1)[..., None])[..., 0].sum(-1)
            weights += self._prior(part, own, first) if log_prior is None else log_prior
            best = int(weights.argmax())
            if not self.weights or weights[best] > torch.cat(self.weights).max():
                self.expected = own[best]
            self.texts.append(part)
            self.weights.append(weights)

    def _prior(self, texts: Tensor, own: Tensor, first: int) -> Tensor:
        """Log of the prior of each text ``[texts]``, if it opens as no public document does."""
        model = torch.log_softmax(own.float(), -1).gather(-1, texts[:, 1:, None])[..., 0]
        laws = self.language.of(texts[:, :-1].flatten(), texts[:, 1:].flatten(), model.flatten())
        found = laws.view_as(model).sum(-1) + float(np.log1p(-_OPENINGS))
        return found if first else found + self.language.opening[texts[:, 0]].double()

    def all(self) -> tuple[Tensor, Tensor]:
        """Texts and weights."""
        return torch.cat(self.texts), torch.cat(self.weights)


def read_sampled(
    rewriter: SampledRewriter,
    language: Context,
    sent: Sequence[int],
    openings: Sequence[Sequence[int]],
    length: int,
    shortlist: int,
    candidates: int,
    rng: np.random.Generator,
) -> Guess:
    """Votes of weighed texts, place by place.

    The prior is a mixture: public openings, of which each has the same share, and what language model and public text
    make of any other, which is searched from the best text so far, one changed place at a time.

    Args:
        rewriter: the public mechanism.
        language: the prior.
        sent: what was seen.
        openings: of public documents, as long as the text.
        length: of the text.
        shortlist: tokens tried in one place.
        candidates: texts weighed in all; half of them openings at most.
        rng: which openings, and in which order places are tried.
    """
    device, head = rewriter.bundle.device, rewriter.head(sent)
    pool = _Weighed(rewriter, language, sent)
    chosen = rng.permutation(len(openings))[: max(1, candidates // 2)]
    if len(chosen):
        texts = torch.tensor([[*sent[:head], *openings[i][head:]] for i in chosen], device=device)
        pool.add(texts, float(np.log(_OPENINGS) - np.log(len(chosen))))
    pool.add(torch.tensor([_fitted(sent, length)], device=device))
    free = range(head, length)
    order = [place for _ in range(1 + candidates // (len(free) or 1)) for place in rng.permutation(free)]
    for place in order:
        if len(pool) + shortlist > candidates:
            break
        known, weights = pool.all()
        pool.add(_changed(known[weights.argmax()], int(place), pool, shortlist))
    return _voted(*pool.all(), len(pool))


def _fitted(sent: Sequence[int], length: int) -> list[int]:
    """What was sent, over again or cut to a length."""
    return [sent[place % len(sent)] for place in range(length)]


def _changed(text: Tensor, place: int, pool: _Weighed, shortlist: int) -> Tensor:
    """The text with other tokens in one place: those seen, as a rewriting repeats some, and those expected."""
    seen = list(dict.fromkeys(pool.sent[pool.rewriter.head(pool.sent) :]))[: shortlist // 2]
    law = pool.language.opening
    if place:
        model = torch.log_softmax(pool.expected[place - 1 : place].float(), -1)
        law = pool.language.following(text[place - 1 : place], model)[0]
    law = law.index_fill(0, pool.rewriter.softmax.barred.to(law.device), -torch.inf)
    expected = law.topk(min(shortlist, len(law))).indices.tolist()
    tokens = [token for token in dict.fromkeys([*seen, *expected]) if token != int(text[place])][:shortlist]
    texts = text.repeat(len(tokens), 1)
    texts[:, place] = torch.tensor(tokens, device=text.device)
    return texts


def _voted(texts: Tensor, weights: Tensor, weighed: int) -> Guess:
    """The marginal of each place over all texts."""
    shares = torch.softmax(weights, 0).cpu()
    ranked = []
    for column in texts.T.cpu():
        tokens, at = column.unique(return_inverse=True)
        votes = torch.zeros(len(tokens), dtype=torch.float64).scatter_add_(0, at, shares)
        ranked.append(tuple(tokens[votes.argsort(descending=True, stable=True)][:_RANKED].tolist()))
    return Guess(tuple(one[0] for one in ranked), tuple(ranked), spent=Spent(candidates=weighed))
