"""The verifier: what the public model says of a candidate prompt, given the answer that was seen.

One forward pass over ``candidate, answer`` gives the candidate's own likelihood (the language prior) and the evidence:
the answer's likelihood, or with logits the divergence between the laws that were seen and those the candidate would
have caused (cf. arXiv 2507.01693). The first token of an answer whose laws are seen counts with the prior: its own law
is the vault's, and a mere likelihood must not outweigh an exact observation.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from smd_research.core.guess import Spent
from smd_research.models.bundle import Bundle

CHUNK = 32


class Weighed(NamedTuple):
    """Candidates ``[c]`` in nats: log prior of the text, evidence of the answer, mean divergence a step (0 without
    laws)."""  # noqa: D205, D209

    prior: Tensor
    evidence: Tensor
    divergence: Tensor

    def total(self, weight: float) -> Tensor:
        """Score ``[c]``: prior plus ``weight`` times the evidence."""
        return self.prior + weight * self.evidence


class Verifier:
    """Simulates candidates against one answer.

    Args:
        bundle: the public model.
        answer: generated tokens ``[t]``, at least one.
        laws: logits ``[t - 1, vocab]`` from which all of them but the first were drawn; None reads the text alone.
    """

    def __init__(self, bundle: Bundle, answer: Tensor, laws: Tensor | None) -> None:
        self._bundle = bundle
        self._answer = answer.to(bundle.device)
        self._laws = None if laws is None or not len(laws) else torch.log_softmax(laws.float().to(bundle.device), -1)
        self._flops = 2.0 * sum(p.numel() for p in bundle.model.parameters())
        self.spent = Spent()

    @property
    def sees_laws(self) -> bool:
        """Whether candidates are held to laws, not to the text alone."""
        return self._laws is not None

    def weigh(self, candidates: Tensor) -> Weighed:
        """Weigh candidates ``[c, n]``."""
        with torch.inference_mode():
            parts = [self._weigh(self._embedded(chunk), chunk) for chunk in torch.split(candidates, CHUNK)]
        return Weighed(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def slopes(self, candidate: Tensor) -> Tensor:
        """First-order change of the evidence by every substitution in ``candidate [n]``, ``[n, vocab]`` (HotFlip)."""
        embedded = self._embedded(candidate)[None].detach().requires_grad_(True)
        with torch.enable_grad():
            _, evidence, _ = self._evidence(self._logits(embedded), len(candidate))
            (gradient,) = torch.autograd.grad(evidence.sum(), embedded)
        self.spent += Spent(1, 3 * self._flops * (len(candidate) + len(self._answer)))
        change = gradient[0] @ self._bundle.embedding.T
        return change - change.gather(1, candidate[:, None])

    def _embedded(self, candidates: Tensor) -> Tensor:
        return self._bundle.embedding[candidates]

    def _logits(self, embedded: Tensor) -> Tensor:
        """Logits ``[c, n + t - 1, vocab]`` over embedded candidates followed by the answer without its last token."""
        answer = self._bundle.embedding[self._answer[:-1]].expand(len(embedded), -1, -1)
        logits: Tensor = self._bundle.model(inputs_embeds=torch.cat([embedded, answer], 1), use_cache=False).logits
        return logits

    def _weigh(self, embedded: Tensor, candidates: Tensor) -> Weighed:
        logits = self._logits(embedded)
        length = candidates.shape[1]
        self.spent += Spent(len(candidates), self._flops * logits.shape[0] * logits.shape[1])
        own = functional.cross_entropy(
            logits[:, : length - 1].transpose(1, 2).float(), candidates[:, 1:], reduction="none"
        )
        first, evidence, divergence = self._evidence(logits, length)
        return Weighed(first - own.sum(1), evidence, divergence)

    def _evidence(self, logits: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """What the first token adds to the prior, the evidence, and the mean divergence, each ``[c]``."""
        logs = torch.log_softmax(logits[:, length - 1 :].float(), -1)
        nothing = logs.new_zeros(len(logs))
        if self._laws is None:
            index = self._answer.expand(len(logs), -1)[..., None]
            return nothing, logs.gather(2, index)[..., 0].sum(1), nothing
        divergence = (self._laws.exp() * (self._laws - logs[:, 1 : 1 + len(self._laws)])).sum(-1)
        return logs[:, 0, self._answer[0]], -divergence.sum(1), divergence.mean(1).clamp(min=0.0)  # rounding
