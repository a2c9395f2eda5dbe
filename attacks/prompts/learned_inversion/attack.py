"""Learned inversion: a transformer, taught on public text that the known client sent, reads a message's states.

The state-to-token inverters of split learning (SIP, in BiSR, arXiv 2409.00960) learn with the client's public part and
its noise; so does this one, for each layer and mechanism anew. It needs no likelihood, so that it applies to whatever
can be simulated.
"""

from typing import ClassVar

import numpy as np
import torch

from attacks.base import PromptAttack, Public
from attacks.prompts.learned_inversion.inverter import Training, fitted
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import HiddenStates
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import Guess, Spent
from smd_research.core.observable import Observable
from smd_research.mechanisms.releases import release_of
from smd_research.mechanisms.split_inference import PermutationParameters, SplitParameters

RANKED = 10


class LearnedInversion(PromptAttack):
    """Reads the tokens of a prompt off the states at the cut with a learned inverter.

    Args:
        length: tokens of the longest text to learn from; longer prompts are read all the same.
        width: of the inverter.
        layers: of the inverter; 0 is a linear inverse, trained.
        steps: of its training.
        batch: texts of a step.
        learning_rate: peak.
        seed: of texts, noise and training.

    Raises:
        ConfigError: for a value out of range.
    """

    needs: ClassVar[frozenset[Observable]] = frozenset({Observable.HIDDEN_STATES})

    def __init__(
        self,
        length: int,
        width: int = 128,
        layers: int = 2,
        steps: int = 300,
        batch: int = 32,
        learning_rate: float = 2e-3,
        seed: int = 0,
    ) -> None:
        if min(length, width, steps, batch) < 1 or layers < 0 or not learning_rate > 0:
            raise ConfigError("attack: length, width, steps and batch are at least 1, layers 0, learning_rate above 0")
        self._training = Training(length, width, layers, steps, batch, learning_rate)
        self._seed = seed

    def fit(self, public: Public) -> None:
        """Train the inverter on what the client sends for public text.

        Raises:
            NotApplicableError: without a cut or public text, or for states in a secret order.
        """
        super().fit(public)
        cut, permutation = public.parameters_of(SplitParameters), public.published(PermutationParameters)
        if permutation and permutation.permute != "none":
            raise NotApplicableError(f"learned_inversion needs states in order; here permute={permutation.permute}")
        if not public.corpus:
            raise NotApplicableError("there is no public text to learn from")
        release = release_of(public.parameters)
        self._fitted = fitted(public.bundle, cut, release, public.corpus, public.wrapper, self._training, self._seed)

    @torch.inference_mode()
    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        sent = view.of(HiddenStates)[0].hidden.to(self.public.bundle.device, torch.float32)
        logits = self._fitted.inverter(sent[None])[0]
        best = logits.topk(min(RANKED, logits.shape[1]), -1).indices.tolist()
        for position, token in view.wrapper.known(len(sent)).items():
            best[position] = [token]
        ranked = tuple(map(tuple, best))
        return Guess(
            ids=tuple(tokens[0] for tokens in ranked),
            ranked=ranked,
            spent=Spent(steps=self._training.steps),
            facts={"inverter_accuracy": self._fitted.accuracy},
        )
