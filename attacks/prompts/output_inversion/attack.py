"""Inversion from what the provider reads without touching a single reply: the answer's text, or with it the logits.

A learned inverter proposes prompts (Language Model Inversion, arXiv 2311.13647; PILS, arXiv 2506.17090, for a sequence
of laws), the public model verifies each by simulating its answer, and a search by substitutions mends the best ones.
The logits of every step are the provider's own: it computes them again from its record and the public weights.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attacks.base import PromptAttack, Public
from attacks.baselines.prior import Prior
from attacks.baselines.random import public_length
from attacks.prompts.output_inversion.inverter import Scribe, fitted
from attacks.prompts.output_inversion.pairs import Coordinates, Recipe
from attacks.prompts.output_inversion.search import Inversion, InversionEffort, search
from attacks.prompts.output_inversion.verifier import Verifier
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import StartDecode
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import Guess, Spent
from smd_research.core.observable import Observable
from smd_research.models.replay import replayed_logits


class OutputInversion(PromptAttack):
    """From the answer's text alone: propose, simulate, mend.

    Args:
        length: tokens of the longest prompt to learn from; longer ones are written all the same.
        outputs: generated tokens to read.
        windows: windows of each public document that become training prompts.
        samples: training prompts that the public model writes for each public document.
        epochs: passes over the pairs.
        batch: pairs of a training step.
        learning_rate: peak learning rate of the training.
        seed: of pairs and training.
        proposals: prompts that the inverter writes.
        candidates: prompts simulated in all, the anytime budget.
        round_size: prompts of one round of the search.
        branches: best prompts from which rounds start in turn.
        weight: of the evidence (nats) against the language prior, at the end of the search.
        first_weight: the same at its beginning.
        tolerance: where laws are read, the mean divergence a step (nats) under which a prompt proves itself.
        ranked: candidates reported at each position.

    Raises:
        ConfigError: without proposals, or for a budget below one.
    """

    needs = frozenset({Observable.OUTPUT_TOKENS})
    reads_laws: ClassVar[bool] = False

    def __init__(
        self,
        length: int,
        outputs: int,
        windows: int,
        samples: int,
        epochs: int,
        batch: int,
        learning_rate: float,
        seed: int,
        proposals: int,
        candidates: int,
        round_size: int,
        branches: int,
        weight: float,
        first_weight: float,
        tolerance: float,
        ranked: int,
    ) -> None:
        if proposals < 1 or candidates < 1 or length < 1 or outputs < 1:
            raise ConfigError("attack: proposals, candidates, length and outputs are at least 1")
        self._recipe = Recipe(length, outputs, windows, samples, epochs, batch, learning_rate, self.reads_laws)
        self._effort = InversionEffort(candidates, round_size, branches, weight, first_weight, tolerance)
        self._seed, self._proposals, self._ranked = seed, proposals, ranked
        self._retrieval = Prior()

    def fit(self, public: Public) -> None:
        """Train the inverter on the public model's answers to public text.

        Raises:
            NotApplicableError: without public text.
        """
        super().fit(public)
        if not public.corpus:
            raise NotApplicableError("there is no public text to learn from")
        self._retrieval.fit(public)
        firsts = {document[0] for document in public.corpus}
        self._opening = tuple(firsts) if len(firsts) == 1 else ()
        self._inverter, self._coordinates = fitted(
            public.bundle, public.corpus, self._recipe, self._seed, public.wrapper
        )

    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        length, bundle = public_length(view), self.public.bundle
        view = view.stream(0)
        laws = replayed_logits(bundle, view) if self.reads_laws else None
        scribe = self._scribe(view, laws)
        known = self._known(view, length)
        if len(known) == length:
            return Guess(tuple(known[position] for position in range(length)))
        begun = [known[position] for position in range(next(p for p in range(length) if p not in known))]
        before = torch.tensor(begun, dtype=torch.long, device=bundle.device)
        written = scribe.write(before, length, self._proposals, rng)
        retrieved = torch.tensor(self._retrieval.recover(view, rng).ids).to(written)
        proposals = torch.cat([written, retrieved[None]])
        fixed = torch.tensor([position in known for position in range(length)], device=bundle.device)
        proposals[:, fixed] = torch.tensor([known[position] for position in sorted(known)]).to(written)
        verifier = Verifier(bundle, torch.tensor(view.output_ids), laws)
        found = search(scribe, verifier, proposals, fixed, self._effort, rng)
        return self._guess(found, verifier)

    def _known(self, view: AdversaryView, length: int) -> dict[int, int]:
        """Public tokens by position: those the provider got, a chat template's, or what every text begins with."""
        given = [token for start in view.of(StartDecode) for token in start.public.tolist()]
        leading = given or (() if view.wrapper else self._opening)
        return view.wrapper.known(length) | dict(enumerate(leading[:length]))

    def _scribe(self, view: AdversaryView, laws: Tensor | None) -> Scribe:
        """The inverter with the answer as it was trained to read it: filled up with the end token, or cut."""
        size, bundle = self._recipe.outputs, self.public.bundle
        answer = torch.tensor(view.output_ids[:size])
        if len(answer) < size and bundle.end_id is not None:
            end = int(answer[-1]) if int(answer[-1]) in bundle.end_ids else bundle.end_id
            answer = torch.cat([answer, torch.full((size - len(answer),), end)])
        return Scribe(self._inverter, answer.to(bundle.device), self._readings(laws, len(answer)))

    def _readings(self, laws: Tensor | None, size: int) -> Tensor | None:
        """The laws in the inverter's coordinates ``[size, d]``; zero where none was seen."""
        if laws is None:
            return None
        assert isinstance(self._coordinates, Coordinates)
        read = self._coordinates.read(laws)[: size - 1]
        readings = torch.zeros(size, read.shape[1])
        readings[1 : 1 + len(read)] = read
        return readings.to(self.public.bundle.device)

    def _guess(self, found: Inversion, verifier: Verifier) -> Guess:
        """Marginals of the posterior over all simulated prompts, position by position."""
        spent = verifier.spent
        weights = torch.softmax(found.scores.double(), 0)
        vocabulary = self.public.bundle.geometry.vocab
        votes = torch.zeros(found.prompts.shape[1], vocabulary, dtype=torch.float64, device=weights.device)
        votes.scatter_add_(1, found.prompts.T, weights.expand(len(votes), -1))
        seen = min(self._ranked, vocabulary)
        best = votes.topk(seen, 1)
        ranked = tuple(
            tuple(token for token, weight in zip(tokens, shares, strict=True) if weight > 0)
            for tokens, shares in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )
        divergence = float(found.divergence[0]) if verifier.sees_laws else None
        return Guess(
            ids=tuple(tokens[0] for tokens in ranked),
            ranked=ranked,
            certified=None if divergence is None else divergence <= self._effort.tolerance,
            residual=divergence,
            spent=Spent(spent.candidates, spent.flops, found.rounds),
            exhausted=found.exhausted,
        )


class LogitInversion(OutputInversion):
    """The same with the law of every step, which the provider computes from its record of the partial attention."""

    needs = frozenset({Observable.OUTPUT_TOKENS, Observable.QUERIES, Observable.PARTIAL_ATTENTION})
    reads_laws = True
