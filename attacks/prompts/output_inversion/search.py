"""Search for the prompt: from a pool of proposals, by moves that the inverter and the verifier's gradient suggest.

What the verifier scores best is where the next moves start. Substitutions mend single tokens; a rewriting keeps the
beginning and lets the inverter write the rest anew.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attacks.prompts.output_inversion.inverter import Scribe
from attacks.prompts.output_inversion.verifier import Verifier, Weighed


@dataclass(frozen=True)
class InversionEffort:
    """Budget of one search.

    Attributes:
        candidates: prompts simulated, proposals included; the anytime budget.
        round_size: candidates of a round.
        branches: prompts from which rounds start in turn.
        weight: of the evidence against the language prior at the end.
        first_weight: at the beginning; the weight grows geometrically over the budget, so that the search first looks
            for the right kind of text and then for the right one.
        tolerance: mean divergence a step (nats) under which a candidate proves itself.
    """

    candidates: int
    round_size: int
    branches: int
    weight: float
    first_weight: float
    tolerance: float

    def weight_after(self, simulated: int) -> float:
        """Weight once so many prompts have been simulated."""
        share = min(1.0, simulated / self.candidates)
        return float(self.first_weight ** (1 - share) * self.weight**share)


@dataclass(frozen=True)
class Inversion:
    """What was simulated, best first; the one prompt that proved itself, if there is one.

    Attributes:
        prompts: ``[c, n]``.
        scores: prior plus weighted evidence ``[c]``.
        divergence: mean divergence a step in nats ``[c]``; zero where no laws were seen.
        exhausted: whether the budget ended the search before the prompt proved itself.
        rounds: rounds of substitutions.
    """

    prompts: Tensor
    scores: Tensor
    divergence: Tensor
    exhausted: bool
    rounds: int


class Pool:
    """All prompts simulated so far, each once."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._seen: set[tuple[int, ...]] = set()
        self._prompts: list[Tensor] = []
        self._weighed: list[Weighed] = []

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, candidates: Tensor) -> None:
        """Simulate those of ``candidates [c, n]`` that are new."""
        fresh = []
        for row, ids in enumerate(map(tuple, candidates.tolist())):
            if ids not in self._seen:
                self._seen.add(ids)
                fresh.append(row)
        if fresh:
            self._prompts.append(candidates[fresh])
            self._weighed.append(self._verifier.weigh(candidates[fresh]))

    def ordered(self, weight: float) -> tuple[Tensor, Tensor, Tensor]:
        """Prompts, scores and divergences, best score at this weight of the evidence first."""
        weighed = Weighed(*(torch.cat(column) for column in zip(*self._weighed, strict=True)))
        scores = weighed.total(weight)
        order = scores.argsort(descending=True)
        return torch.cat(self._prompts)[order], scores[order], weighed.divergence[order]


def search(
    scribe: Scribe,
    verifier: Verifier,
    proposals: Tensor,
    fixed: Tensor,
    effort: InversionEffort,
    rng: np.random.Generator,
) -> Inversion:
    """Search from ``proposals [c, n]``.

    Args:
        scribe: the inverter.
        verifier: simulates candidates.
        proposals: where to start.
        fixed: positions ``[n]`` (bool) that are known and stay.
        effort: the budget.
        rng: of the moves.
    """
    pool = Pool(verifier)
    pool.add(proposals[: effort.candidates])
    rounds = 0
    while True:
        weight = effort.weight_after(len(pool))
        before = len(pool)
        prompts, scores, divergence = pool.ordered(weight)
        if verifier.sees_laws and float(divergence.min()) <= effort.tolerance:
            proof = slice(int(divergence.argmin()), int(divergence.argmin()) + 1)
            return Inversion(prompts[proof], scores[proof], divergence[proof], False, rounds)
        if before + effort.round_size > effort.candidates:
            return Inversion(*pool.ordered(effort.weight), True, rounds)
        start = prompts[rounds % min(effort.branches, len(prompts))]
        pool.add(neighbours(scribe, verifier, start, fixed, weight, effort.round_size, rng))
        rounds += 1
        if len(pool) == before:  # every move is known already
            return Inversion(*pool.ordered(effort.weight), True, rounds)


def neighbours(
    scribe: Scribe,
    verifier: Verifier,
    prompt: Tensor,
    fixed: Tensor,
    weight: float,
    size: int,
    rng: np.random.Generator,
) -> Tensor:
    """Candidates ``[size, n]`` near ``prompt [n]``, a quarter by each kind of move.

    One substitution, drawn by its expected gain (Gumbel noise makes the best moves a sample without replacement); two
    substitutions; one after a stretch has moved by one place, since a prompt that is right but for a shift is far away
    in substitutions; and the inverter's rewriting behind a random place.
    """
    law = scribe.law(prompt)
    gain = law - law.gather(1, prompt[:, None]) + weight * verifier.slopes(prompt)
    gain.scatter_(1, prompt[:, None], -torch.inf)
    gain[fixed] = -torch.inf
    noise = torch.from_numpy(rng.gumbel(size=tuple(gain.shape))).to(gain)
    substitutions = size - size // 4
    scale = float(gain[~fixed].topk(8, 1).values.std().clamp(min=1.0))
    best = (gain / scale + noise).flatten().topk(substitutions).indices
    where, token = best // gain.shape[1], best % gain.shape[1]
    moved = prompt.repeat(substitutions, 1)
    quarter = size // 4
    for row in range(quarter):
        moved[row] = _shifted(prompt, fixed, rng)
    moved[torch.arange(substitutions), where] = token
    other = torch.from_numpy(rng.permutation(substitutions)[:quarter]).to(prompt.device)
    moved[quarter + torch.arange(quarter), where[other]] = token[other]
    kept = int(rng.choice((~fixed).nonzero()[:, 0].tolist()))
    rewritten = scribe.write(prompt[:kept], len(prompt), size - substitutions, rng)
    return torch.cat([moved, torch.where(fixed, prompt, rewritten)])


def _shifted(prompt: Tensor, fixed: Tensor, rng: np.random.Generator) -> Tensor:
    """``prompt`` with a stretch of free positions moved by one place."""
    free = (~fixed).nonzero()[:, 0]
    if len(free) < 2:
        return prompt
    one, two = sorted(rng.choice(len(free), 2, replace=False))
    stretch = free[one : two + 1]
    result = prompt.clone()
    result[stretch] = prompt[stretch].roll(1 if rng.random() < 0.5 else -1)
    return result
