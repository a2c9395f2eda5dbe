"""Canaries: texts that nobody writes, put into a training by coins and looked for in what was trained.

A training that promises nothing is the control: it shows what the game finds where there is something to find.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from attacks.base import GuaranteeAttack
from smd_research.core.claim_audit import ClaimAudit
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.data.texts import Texts
from smd_research.mechanisms.privacy.one_run_audit import FEWEST, audit_canaries
from smd_research.training.canaries import drawn_canaries, play
from smd_research.training.methods import Tuning


class Canaries(GuaranteeAttack):
    """Plays the published training once on public texts with canaries among them (Steinke et al., NeurIPS 2023).

    Args:
        canaries: how many, each put in by a fair coin.
        tokens: of each.
        texts: public ones to tune on besides, at least as many as a step's sample has on average.
        classes: drawn for public texts and canaries; the head has so many.
        confidence: of the bound.

    Raises:
        ConfigError: for a value out of range.
    """

    def __init__(self, canaries: int, tokens: int, texts: int, classes: int, confidence: float) -> None:
        if canaries < FEWEST or tokens < 2 or texts < 1 or classes < 2 or not 0 < confidence < 1:
            raise ConfigError(
                f"attack: canaries are {FEWEST} or more, tokens and classes 2 or more, texts 1 or more, confidence "
                f"between 0 and 1, not {canaries}, {tokens}, {classes}, {texts}, {confidence:g}"
            )
        self.canaries, self.tokens, self.texts, self.classes = canaries, tokens, texts, classes
        self.confidence = confidence

    def refute(self, rng: np.random.Generator) -> Sequence[ClaimAudit]:
        tuning = self.public.published(Tuning)  # type: ignore[type-abstract]  # any of its kinds
        if tuning is None:
            raise NotApplicableError("audits a training: give a task, and tuning=dp_sgd or dp_lora")
        bundle = self.public.before or self.public.bundle
        seed, vocabulary = int(rng.integers(2**31)), len(bundle.embedding)
        pool = [token for token in range(vocabulary) if token not in bundle.special_ids]
        around = self._around(rng)
        canaries = drawn_canaries(self.canaries, self.tokens, pool, self.classes, seed)
        with TemporaryDirectory() as folder:
            game = play(
                bundle.model, around, around, canaries, tuning, classes=self.classes, seed=seed, folder=Path(folder)
            )
        found = audit_canaries(game.included, game.scores, game.epsilon, game.delta, self.confidence)
        how = f"one run, {found.right} of {found.guesses} guesses right, at least at {found.confidence:.0%} confidence"
        return [
            ClaimAudit(
                "epsilon of one text tuned on",
                found.claimed,
                found.measured,
                found.holds,
                how,
                found.n,
                exact=False,
                advantage=(found.advantage, found.advantage_low, found.advantage_high),
                ceiling=found.ceiling,
            )
        ]

    def _around(self, rng: np.random.Generator) -> Texts:
        """Public texts with classes drawn for them.

        Raises:
            NotApplicableError: where there are none.
        """
        ids = tuple(ids[: self.tokens] for ids in self.public.corpus if len(ids) >= self.tokens)[: self.texts]
        if not ids:
            raise NotApplicableError(f"no public text has {self.tokens} tokens: take fewer with attack.tokens")
        return Texts(ids, tuple(rng.integers(0, self.classes, len(ids)).tolist()))
