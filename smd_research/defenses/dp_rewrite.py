"""Differentially private rewriting: the client's own small public model writes another text; the provider serves that.

Two forms. ``sampling`` is DP-Prompt's (arXiv 2310.16111): a language model that has the text in its context writes a
new one, each token drawn from the softmax of clipped logits. ``masked`` is DP-MLM's (arXiv 2407.00637): a masked model
draws each token anew. Either way every drawn token saw the whole text, so that epsilons add up over the tokens written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch

from smd_research.boundary import Boundary
from smd_research.core.errors import ConfigError
from smd_research.core.guarantee import check_epsilon
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.defenses.base import NO_TEXT, Defense, Prepared, PublicText
from smd_research.defenses.none import PlainDeployment
from smd_research.mechanisms.privacy.survival import token_frequencies
from smd_research.mechanisms.rewriting.base import Rewriter
from smd_research.mechanisms.rewriting.clipped_softmax import LogitBounds
from smd_research.mechanisms.rewriting.parameters import (
    REWRITE_MECHANISMS,
    RewriteMechanism,
    RewriteParameters,
    barred_tokens,
)
from smd_research.models.bundle import Bundle
from smd_research.models.pair_reader import ReaderShape
from smd_research.training.reader_recipe import ReaderRecipe

Keep = Literal["none", "public"]
KEEPS: tuple[Keep, ...] = get_args(Keep)
_HEADS, _KEPT = 4, 50
_DOCUMENTS, _TOKENS = 8, 32
"""Public text from which bounds are found: documents, and tokens of each."""
_TEXT = "{text}"


class DpRewriteDeployment(PlainDeployment):
    """A client that rewrites, a provider that serves what it gets.

    Args:
        prepared: what is deployed.
        boundary: joins the parties.
    """

    def __init__(self, prepared: "DpRewritePrepared", boundary: Boundary) -> None:
        super().__init__(prepared.bundle, boundary, prepared.shows)
        self._prepared = prepared

    def said(self, ids: Sequence[int]) -> Sequence[int]:
        """What the request's draw writes in place of its tokens."""
        if self._prepared.rewriter is None:
            raise ConfigError("dp_rewrite needs public text to find its bounds and to train on: there is none")
        return self._prepared.rewriter.rewrite(ids, generator(self._prepared.seed, "dp_rewrite", self.draw))


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class DpRewritePrepared(Prepared):
    """A model that is served as it is, and the rewriter that every prompt goes through.

    Attributes:
        rewriter: writes what is sent; None where no public text was given, which the provider's side does without.
    """

    rewriter: Rewriter | None

    def deploy(self, boundary: Boundary) -> DpRewriteDeployment:
        """Start the two parties."""
        return DpRewriteDeployment(self, boundary)


class DpRewrite(Defense):
    """Local differential privacy of the whole text, for each token that is written.

    Args:
        mechanism: ``sampling`` or ``masked``.
        epsilon: of one written token, ``2 (high - low) / T``.
        clipped: False is released code that sets a temperature and clips nothing: it promises nothing.
        low: logits below are raised to it; None: a quantile on public text.
        high: logits above are lowered to it; None: a quantile on public text.
        length: ``sampling``: tokens that are written; None writes as many as the text has, which shows its length.
        template: ``sampling``: what the client's model reads, with ``{text}`` in it; None: the text, then its end.
        keep: ``masked``: ``none`` writes every token anew; ``public`` lets the most frequent tokens of public text
            pass, which then are not protected.
        reader_steps: ``masked``: optimiser steps of the masked model.
        reader_batch: texts of a step.
        reader_learning_rate: peak learning rate.
        reader_width: of its states.
        reader_layers: transformer blocks.
        reader_tokens: longest text that it reads.

    Raises:
        ConfigError: for an unknown name, a value out of range, one bound without the other, or a clip of zero width.
    """

    def __init__(
        self,
        mechanism: RewriteMechanism = "sampling",
        epsilon: float = 20.0,
        clipped: bool = True,
        low: float | None = None,
        high: float | None = None,
        length: int | None = None,
        template: str | None = None,
        keep: Keep = "none",
        reader_steps: int = 300,
        reader_batch: int = 16,
        reader_learning_rate: float = 4e-3,
        reader_width: int = 128,
        reader_layers: int = 2,
        reader_tokens: int = 64,
    ) -> None:
        if mechanism not in REWRITE_MECHANISMS:
            raise ConfigError(f"defense.mechanism={mechanism} is unknown: use one of {', '.join(REWRITE_MECHANISMS)}")
        if keep not in KEEPS:
            raise ConfigError(f"defense.keep={keep} is unknown: use one of {', '.join(KEEPS)}")
        check_epsilon(epsilon, "defense.epsilon")
        if (low is None) != (high is None):
            raise ConfigError("defense.low and defense.high go together: give both, or neither")
        if length is not None and length < 1:
            raise ConfigError(
                f"defense.length={length} is out of range: at least 1, or null for as many as the text has"
            )
        if template is not None and template.count(_TEXT) != 1:
            raise ConfigError(f"defense.template has to name {_TEXT} once: that is where the text goes")
        self.mechanism: RewriteMechanism = mechanism
        self.epsilon = epsilon
        self.clipped = clipped
        self.bounds = None if low is None or high is None else LogitBounds(low, high)
        self.length = length if mechanism == "sampling" else None
        self.template = template
        self.keep: Keep = keep
        shape = ReaderShape(reader_width, reader_layers, _HEADS, reader_tokens)
        self.recipe = ReaderRecipe(shape, reader_steps, reader_batch, reader_learning_rate)

    @property
    def shows(self) -> frozenset[Observable]:
        seen = {Observable.SANITISED_IDS, Observable.OUTPUT_TOKENS}
        return frozenset(seen if self.length else {*seen, Observable.LENGTH})

    def prepare(
        self, bundle: Bundle, public_text: PublicText = NO_TEXT, seed: int = 0, folder: Path | None = None
    ) -> DpRewritePrepared:
        found = self.parameters(bundle, public_text.corpus)
        rewriter = None if found is None else found.rewriter(bundle)
        return DpRewritePrepared(
            bundle=bundle,
            public=bundle,
            base=bundle,
            parameters=() if found is None else (found,),
            guarantee=None if rewriter is None else rewriter.guarantee(),
            shows=self.shows,
            seed=seed,
            rewriter=rewriter,
        )

    def parameters(self, bundle: Bundle, corpus: Sequence[Sequence[int]] = ()) -> RewriteParameters | None:
        """All that is public of the rewriter for a model; None without the public text that it takes.

        Args:
            bundle: the model.
            corpus: token ids of public documents.

        Raises:
            ConfigError: for public text too short to train on, or a length that does not fit the model.
        """
        if self.length is not None and self.length >= bundle.geometry.context // 2:
            raise ConfigError(
                f"defense.length={self.length} leaves no room for a text in the context of {bundle.geometry.context} "
                f"of {bundle.name}: lower it"
            )
        if not corpus and (self.bounds is None or self.mechanism == "masked"):
            return None
        begun = self._begun(bundle, corpus)
        bounds = self.bounds or public_bounds(
            begun.rewriter(bundle), bundle, corpus, min(_TOKENS, self.recipe.shape.tokens)
        )
        return replace(begun, low=bounds.low, high=bounds.high)

    def _begun(self, bundle: Bundle, corpus: Sequence[Sequence[int]]) -> RewriteParameters:
        """The parameters but for the bounds, which are found with a rewriter."""
        unit = (self.mechanism, self.epsilon, 0.0, 1.0, self.clipped)
        if self.mechanism == "masked":
            from smd_research.training.masked import reader_of

            passed = public_tokens(bundle, corpus) if self.keep == "public" else ()
            return RewriteParameters(*unit, passed=passed, reader=reader_of(bundle, corpus, self.recipe))
        before, behind = around(bundle, self.template)
        anew = self.template is None
        return RewriteParameters(*unit, length=self.length, before=before, behind=behind, anew=anew)


def around(bundle: Bundle, template: str | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids in front of a text and behind it, where a model reads it to write another."""
    if template is None:
        return (), () if bundle.end_id is None else (bundle.end_id,)
    before, behind = (
        bundle.tokenizer(part, add_special_tokens=False)["input_ids"] if part else [] for part in template.split(_TEXT)
    )
    return tuple(before), tuple(behind)


def public_tokens(bundle: Bundle, corpus: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The most frequent tokens of public text that hold no digit: function words, punctuation, white space."""
    counts = token_frequencies(corpus, bundle.geometry.vocab)
    counts[list(barred_tokens(bundle))] = 0
    frequent = [int(token) for token in (-counts).argsort(kind="stable")[: 2 * _KEPT] if counts[token]]
    return tuple(sorted([t for t in frequent if not any(c.isdigit() for c in bundle.decode([t]))][:_KEPT]))


def public_bounds(
    rewriter: Rewriter, bundle: Bundle, corpus: Sequence[Sequence[int]], tokens: int = _TOKENS
) -> LogitBounds:
    """Bounds of the clip from the logits of a few public texts, each rewritten as itself.

    Raises:
        ConfigError: for public text that is all special tokens.
    """
    possible = torch.ones(bundle.geometry.vocab, dtype=torch.bool, device=bundle.device)
    possible[list(barred_tokens(bundle))] = False
    found = []
    for document in corpus[:_DOCUMENTS]:
        text = list(document[:tokens])
        if rewriter.drawn(text):
            found.append(rewriter.logits(torch.tensor([text], device=bundle.device), text)[0][:, possible])
    if not found:
        raise ConfigError("the public text has no tokens to find bounds with: give defense.low= and defense.high=")
    return LogitBounds.of_public(torch.cat(found))
