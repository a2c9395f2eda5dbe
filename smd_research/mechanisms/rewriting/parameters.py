"""A rewriter from its public parameters: the same for the client that uses it and the attacker that knows it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch

from smd_research.mechanisms.rewriting.base import Rewriter
from smd_research.mechanisms.rewriting.clipped_softmax import ClippedSoftmax, LogitBounds
from smd_research.mechanisms.rewriting.masked import MaskedRewriter
from smd_research.mechanisms.rewriting.sampled import SampledRewriter
from smd_research.models.bundle import Bundle
from smd_research.models.pair_reader import PairReader

RewriteMechanism = Literal["sampling", "masked"]
REWRITE_MECHANISMS: tuple[RewriteMechanism, ...] = get_args(RewriteMechanism)


@dataclass(frozen=True, eq=False)
class RewriteParameters:
    """What is published of a rewriter: enough to write its law down.

    Attributes:
        mechanism: ``sampling`` or ``masked``.
        epsilon: of one written token.
        low: of the clip.
        high: of the clip.
        clipped: whether logits are clipped.
        length: tokens that ``sampling`` writes; None for as many as the text has.
        before: token ids in front of the text, where ``sampling`` reads it.
        behind: token ids behind it.
        anew: whether it then reads the text's first special tokens again.
        passed: tokens that ``masked`` lets pass, besides special ones.
        reader: the masked model; None where none is used.
    """

    mechanism: RewriteMechanism
    epsilon: float
    low: float
    high: float
    clipped: bool
    length: int | None = None
    before: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()
    anew: bool = True
    passed: tuple[int, ...] = ()
    reader: PairReader | None = field(default=None, repr=False)

    def rewriter(self, bundle: Bundle) -> Rewriter:
        """The rewriter.

        Args:
            bundle: the public model.
        """
        barred = torch.tensor(sorted({*barred_tokens(bundle), *self.passed}), dtype=torch.long)
        softmax = ClippedSoftmax(LogitBounds(self.low, self.high), self.epsilon, self.clipped, barred)
        if self.reader is not None:
            return MaskedRewriter(softmax, self.reader, bundle.special_ids | frozenset(self.passed))
        return SampledRewriter(softmax, bundle, self.before, self.behind, self.anew, self.length)


def barred_tokens(bundle: Bundle) -> Sequence[int]:
    """Tokens that no rewriter writes: special ones, and rows of the table that no text has."""
    vocab = bundle.geometry.vocab
    padding = range(min(len(bundle.tokenizer), vocab), vocab)
    return sorted({*(token for token in bundle.special_ids if token < vocab), *padding})
