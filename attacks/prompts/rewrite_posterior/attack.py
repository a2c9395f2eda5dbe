"""The Bayesian reading of rewritten text (Kerckhoffs: model, clip and temperature are public, the draws are not)."""

from typing import ClassVar

import numpy as np

from attacks.base import PromptAttack, Public
from attacks.baselines.random import public_length
from attacks.prompts.rewrite_posterior.masked_reading import read_masked
from attacks.prompts.rewrite_posterior.sampled_reading import read_sampled
from attacks.text_context import Context
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import PromptIds
from smd_research.core.errors import ConfigError
from smd_research.core.guess import Guess, Spent
from smd_research.core.observable import Observable
from smd_research.mechanisms.rewriting.masked import MaskedRewriter
from smd_research.mechanisms.rewriting.parameters import RewriteParameters
from smd_research.mechanisms.rewriting.sampled import SampledRewriter

MODES = ("posterior", "read")


class RewritePosterior(PromptAttack):
    """Looks for the text from which the mechanism most likely wrote what was seen, weighed by a prior.

    A text rewritten place by place is decoded left to right: a beam of readings under the language model, each
    extension weighed by the exact law of what stands in its place; then again with the reading found as the context.
    A text written freely gives no place to hold on to: public openings and single changes of the best one are weighed
    by the exact likelihood of all that was written, and the places are decided by their votes.

    Args:
        mode: ``posterior``, or ``read``, which takes what was sent as it stands.
        shortlist: tokens weighed at each place.
        beam: readings carried along, of a text rewritten place by place.
        sweeps: how often it is decoded.
        candidates: texts weighed, of one that was written freely.
        lm_share: weight of the language model in the prior, the rest is the public text; None: what explains that text
            best.

    Raises:
        ConfigError: for a value out of range.
    """

    needs: ClassVar[frozenset[Observable]] = frozenset({Observable.SANITISED_IDS, Observable.LENGTH})

    def __init__(
        self,
        mode: str = "posterior",
        shortlist: int = 32,
        beam: int = 8,
        sweeps: int = 2,
        candidates: int = 256,
        lm_share: float | None = None,
    ) -> None:
        if mode not in MODES:
            raise ConfigError(f"attack.mode={mode} is unknown: use one of {', '.join(MODES)}")
        if min(shortlist, beam, sweeps, candidates) < 1 or not (lm_share is None or 0 <= lm_share <= 1):
            raise ConfigError(
                "rewrite_posterior needs attack.shortlist, beam, sweeps and candidates of at least 1, and "
                "attack.lm_share within [0, 1]"
            )
        self._mode = mode
        self._shortlist, self._beam, self._sweeps = shortlist, beam, sweeps
        self._candidates = candidates
        self._lm_share = lm_share

    def fit(self, public: Public) -> None:
        """Rebuild the rewriter from its public parameters and count the corpus.

        Raises:
            NotApplicableError: when nothing was rewritten.
        """
        super().fit(public)
        self._rewriter = public.parameters_of(RewriteParameters).rewriter(public.bundle)
        self._language = Context(public.bundle, public.corpus, self._lm_share)

    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        wrapper = view.wrapper
        length = public_length(view) - len(wrapper)
        whole = view.of(PromptIds)[0].ids.tolist()
        sent = whole[wrapper.place(len(whole))]
        return self._recover(sent, length, wrapper.head, rng).wrapped(wrapper)

    def _recover(self, sent: list[int], length: int, before: tuple[int, ...], rng: np.random.Generator) -> Guess:
        """What the user wrote, of a length, from what was sent of it and the public tokens before it."""
        if self._mode == "read":
            return Guess(tuple(sent), spent=Spent(candidates=1))
        if isinstance(self._rewriter, MaskedRewriter):
            return read_masked(self._rewriter, self._language, sent, before, self._shortlist, self._beam, self._sweeps)
        assert isinstance(self._rewriter, SampledRewriter)
        openings = [document[:length] for document in self.public.corpus if len(document) >= length]
        return read_sampled(
            self._rewriter, self._language, sent, openings, length, self._shortlist, self._candidates, rng
        )
