"""A known template with one hidden value: which value makes what was written likeliest."""

from typing import ClassVar

import numpy as np
import torch

from attacks.base import Public, Template, TemplateAttack
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import PromptIds
from smd_research.core.errors import ConfigError
from smd_research.core.guess import Guess, Spent
from smd_research.core.observable import Observable
from smd_research.mechanisms.rewriting.parameters import RewriteParameters


class RewriteRegister(TemplateAttack):
    """Exact likelihood of the rewritten text for every candidate of a register: the Bayes-optimal choice among them.

    Args:
        secret: type of the hidden value.
        candidates: length of the register.
        ranked: candidates reported.

    Raises:
        ConfigError: for a number below one.
    """

    needs: ClassVar[frozenset[Observable]] = frozenset({Observable.SANITISED_IDS})

    def __init__(self, secret: str = "name", candidates: int = 100, ranked: int = 10) -> None:
        if candidates < 1 or ranked < 1:
            raise ConfigError("rewrite_register needs attack.candidates and attack.ranked of at least 1")
        self.secret = secret
        self.candidates = candidates
        self._ranked = ranked

    def fit(self, public: Public) -> None:
        """Rebuild the rewriter from its public parameters.

        Raises:
            NotApplicableError: when nothing was rewritten.
        """
        super().fit(public)
        self._rewriter = public.parameters_of(RewriteParameters).rewriter(public.bundle)

    def fill(self, view: AdversaryView, template: Template, rng: np.random.Generator) -> Guess:
        wrapper, n = view.wrapper, len(template.ids)
        whole = view.of(PromptIds)[0].ids.tolist()
        sent = whole[wrapper.place(len(whole))]
        filled = [
            [*template.ids[: template.start], *value, *template.ids[template.end :]][wrapper.place(n)]
            for value in template.candidates
        ]
        scores = self._rewriter.log_likelihood(torch.tensor(filled, device=self.public.bundle.device), sent)
        order = scores.argsort(descending=True, stable=True).tolist()
        best = [template.candidates[i] for i in order[: self._ranked]]
        inside = [tuple(dict.fromkeys(value[at] for value in best)) for at in range(template.end - template.start)]
        return Guess(
            ids=(*[-1] * template.start, *best[0], *[-1] * (n - template.end)),
            ranked=(*[()] * template.start, *inside, *[()] * (n - template.end)),
            spent=Spent(candidates=len(filled)),
            choices=tuple(order),
        )
