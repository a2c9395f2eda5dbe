"""What language models and the known sampler say of a line-up: computed once, read by several judges."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.prompts.pick_stream.language import DomainModel, ServedModel, of_tokens
from attacks.prompts.pick_stream.lineup import Lineup
from smd_research.data.prompts import TokenSpan
from smd_research.mechanisms.decoys.quantised_sampling import weigh_by_widenings
from smd_research.mechanisms.decoys.quantiser import Quantiser
from smd_research.models.bundle import Bundle


@dataclass(frozen=True, repr=False)
class Evidence:
    """Log probabilities of a line-up's tokens.

    Attributes:
        lineup: the prompts.
        served: under the served model ``[streams, n]``.
        domain: under the domain-tuned model ``[streams, n]``.
        ranks: natural logarithm of each token's rank under the served model ``[streams, n]``.
        prior: of the secrets under the sampler's model ``[streams]``.
        law: log probability that the sampler draws all the others from this one ``[streams]``; 0 where unknown.
    """

    lineup: Lineup
    served: Tensor
    domain: Tensor
    ranks: Tensor
    prior: Tensor
    law: Tensor

    def secrets(self, log_p: Tensor) -> Tensor:
        """The sum over the positions that differ ``[streams]``."""
        return log_p[:, self.lineup.differs].sum(1)

    def rest(self, log_p: Tensor) -> Tensor:
        """The sum over the common positions after the first that differs ``[streams]``."""
        after = ~self.lineup.differs
        after[: self.lineup.first] = False
        return log_p[:, after].sum(1)


class Witness:
    """Gathers the evidence on line-ups.

    Args:
        bundle: the served model, which the sampler asks too.
        served: the same, as a judge.
        domain: the domain-tuned model.
        quantiser: how the fakes were drawn.
    """

    def __init__(self, bundle: Bundle, served: ServedModel, domain: DomainModel, quantiser: Quantiser) -> None:
        self._bundle = bundle
        self._served = served
        self._domain = domain
        self.quantiser = quantiser

    @torch.inference_mode()
    def evidence(self, lineup: Lineup) -> Evidence:
        """All of it, in one forward of the served model and one walk of the sampler."""
        predictions = self._served.predictions(lineup)
        served = of_tokens(predictions, lineup)
        ranks = (predictions > served[..., None]).sum(-1).float().log1p()
        prior, law = self._sampler(lineup)
        return Evidence(lineup, served, self._domain.of_tokens(served, lineup), ranks, prior, law)

    def _sampler(self, lineup: Lineup) -> tuple[Tensor, Tensor]:
        """The sampler's prior and law ``[streams]``, under the first reading of the line-up that it could have drawn.

        Spans are runs of positions that differ; where the streams agree by chance inside a span, runs that stand close
        together are one. Bins are as narrow as any prompt allows: a sampler widens them only when narrower ones fail,
        so that a prompt which needs wider ones than another is hardly the real one.
        """
        prior = torch.zeros(lineup.size, dtype=torch.float64)
        for spans in _readings(lineup.spans):
            prompts = lineup.ids.to(self._bundle.device)
            for weights in weigh_by_widenings(self._bundle, prompts, spans, self.quantiser):
                prior = weights.log_prior.cpu()
                if bool(weights.log_law.isfinite().any()):
                    return prior, weights.log_law.cpu()
        return prior, torch.zeros_like(prior)


def _readings(runs: tuple[tuple[int, int], ...]) -> list[list[TokenSpan]]:
    """The ways to read runs as spans: as they are, or those that are one or two tokens apart as one."""
    found: list[list[TokenSpan]] = []
    for gap in (0, 1, 2):
        spans = _merged(runs, gap)
        if spans and spans not in found:
            found.append(spans)
    return found


def _merged(runs: tuple[tuple[int, int], ...], gap: int) -> list[TokenSpan]:
    """Runs as spans, those at most ``gap`` tokens apart as one."""
    spans: list[TokenSpan] = []
    for start, end in runs:
        if spans and start - spans[-1].end <= gap:
            spans[-1] = TokenSpan(spans[-1].start, end, "secret")
        else:
            spans.append(TokenSpan(start, end, "secret"))
    return spans
