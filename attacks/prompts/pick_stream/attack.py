"""Which of the streams is real? The attackers of Prompt Obfuscation, who first read every stream and then judge.

Under Prompt Obfuscation the provider decodes an authentic prompt and ``lambda`` virtual ones side by side (arXiv
2409.19134, v1-v4). Each stream's transcript gives its prompt away as that of a single one would
(``partial_attention_inversion``), so nothing is hidden but which prompt is real. Where the prompts differ are the
secrets; the judges weigh them. Ranking by the ratio of the secrets' law to the fakes' is optimal (honeywords: Su et
al., arXiv 2311.10960); the other judges look for what the construction, not the values, gives away.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from attacks.base import PromptAttack, Public
from attacks.prompts.pick_stream import repetition, retokenisation, termination
from attacks.prompts.pick_stream.consistency import Consistency
from attacks.prompts.pick_stream.discriminator import Discriminator
from attacks.prompts.pick_stream.evidence import Evidence, Witness
from attacks.prompts.pick_stream.language import DomainModel, ServedModel
from attacks.prompts.pick_stream.lineup import Lineup, verdict
from attacks.prompts.pick_stream.reading import Reader, StreamReading
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import StartDecode
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import Guess, Verdict
from smd_research.core.observable import Observable
from smd_research.mechanisms.decoys.quantiser import Quantiser
from smd_research.models import sources

Judge = Callable[["StreamsSeen"], Tensor]


class StreamsSeen:
    """What the judges see: the streams' prompts, the transcript, what models say of them; and what the judges found."""

    def __init__(
        self, readings: Sequence[StreamReading], requests: Sequence[AdversaryView], evidence: Evidence
    ) -> None:
        self.lineups = [reading.lineup for reading in readings]
        self.lineup = self.lineups[0]
        self.view = requests[0]
        self.evidence = evidence
        self.weights: dict[str, Tensor] = {}

    @property
    def written(self) -> Lineup:
        """What users wrote, or would have written: the streams' prompts without a chat template's tokens."""
        return Lineup(self.lineup.ids[:, self.view.wrapper.place(self.lineup.ids.shape[1])])


JUDGES = (
    "joint",
    "likelihood_ratio",
    "likelihood",
    "likelihood_domain",
    "sampler_law",
    "discriminator",
    "plausibility",
    "retokenisation",
    "consistency",
    "intersection",
    "termination",
    "random",
)
"""Every line of evidence; the guess follows the first."""


class PickStream(PromptAttack):
    """Reads all streams of a request, and picks the real one by each of several lines of evidence.

    Threat model: passive provider, who knows weights, the sampler and its public parameters, and public text of the
    same kind with its secrets marked. The streams are read once for all judges; the guess follows the first judge.

    Args:
        judges: lines of evidence, of ``joint`` (the ratio, retokenisation, consistency, intersection and termination
            together), ``likelihood_ratio``, ``likelihood``, ``likelihood_domain``, ``sampler_law``, ``discriminator``,
            ``plausibility``, ``retokenisation``, ``consistency``, ``intersection``, ``termination`` and ``random``.
        model: folder of a second language model with the served one's tokenizer, to stand behind the domain-tuned
            model; null takes the served one.
        training_sets: line-ups of public text that the discriminator is trained on.
        layers: blocks that the consistency check replays.

    Raises:
        ConfigError: for no judge or an unknown one.
    """

    needs = frozenset({Observable.QUERIES, Observable.PARTIAL_ATTENTION})

    def __init__(
        self,
        judges: Sequence[str] = JUDGES,
        model: str | None = None,
        training_sets: int = 32,
        layers: int = 3,
    ) -> None:
        self._judges: dict[str, Judge] = {
            "joint": self._joint,
            "likelihood_ratio": _likelihood_ratio,
            "likelihood": lambda seen: seen.evidence.secrets(seen.evidence.served),
            "likelihood_domain": lambda seen: seen.evidence.secrets(seen.evidence.domain),
            "sampler_law": lambda seen: seen.evidence.prior + seen.evidence.law,
            "discriminator": lambda seen: self._discriminator.weights(seen.evidence),
            "plausibility": lambda seen: seen.evidence.served.sum(1),
            "retokenisation": lambda seen: retokenisation.weights(seen.written, self.public.bundle.tokenizer),
            "consistency": lambda seen: self._consistency.weights(seen.lineup, seen.view),
            "intersection": lambda seen: repetition.weights(seen.lineups)[0],
            "termination": self._termination,
            "random": lambda seen: torch.zeros(seen.lineup.size),
        }
        unknown = sorted(set(judges) - set(self._judges))
        if unknown or not judges:
            raise ConfigError(f"attack.judges={list(judges)}: give one or more of {', '.join(self._judges)}")
        self._asked = tuple(judges)
        self._model = model
        self._training_sets = training_sets
        self._layers = layers

    def fit(self, public: Public) -> None:
        """Fit the domain model; the discriminator trains when it first sees a prompt's length."""
        super().fit(public)
        quantiser = public.published(Quantiser)
        if quantiser is None:
            raise NotApplicableError("needs several streams of which one is real, which the defense does not decode")
        bundle, served = public.bundle, ServedModel(public.bundle)
        base = served
        if self._model is not None:
            second = sources.local(self._model, str(bundle.device))
            if second.geometry.vocab != bundle.geometry.vocab:
                raise ConfigError(f"attack.model={self._model}: its vocabulary is not that of {bundle.name}")
            base = ServedModel(second)
        domain = DomainModel(public.corpus, base, bundle.geometry.vocab)
        self._witness = Witness(bundle, served, domain, quantiser)
        self._consistency = Consistency(bundle, self._layers)
        self._discriminator = Discriminator(
            bundle, self._witness, public.corpus, public.spans, self._training_sets, public.wrapper
        )
        self._reader = Reader(public)

    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        requests = repetition.requests_of(view)
        if not requests or requests[0].streams < 2:
            raise NotApplicableError("needs several streams of which one is real, and the request has one")
        several = {"intersection", "joint"} & set(self._asked)
        readings = [self._reader.read(request, rng) for request in (requests if several else requests[:1])]
        lineup = readings[0].lineup
        if not readings[0].complete:
            verdicts = tuple(verdict(judge, torch.zeros(lineup.size), rng) for judge in self._asked)
        else:
            complete = [reading for reading in readings if reading.complete]
            seen = StreamsSeen(complete, requests, self._witness.evidence(lineup))
            verdicts = tuple(self._verdict(judge, seen, rng) for judge in self._asked)
        candidates = tuple(tuple(row) for row in lineup.ids.tolist())
        return Guess(
            ids=candidates[verdicts[0].picked],
            certified=readings[0].certified,
            residual=readings[0].residual,
            spent=readings[0].spent,
            exhausted=readings[0].exhausted,
            candidates=candidates,
            verdicts=verdicts,
        )

    def _verdict(self, judge: str, seen: StreamsSeen, rng: np.random.Generator) -> Verdict:
        requests = repetition.weights(seen.lineups)[1] if judge == "intersection" else None
        return verdict(judge, self._weights(judge, seen), rng, requests)

    def _weights(self, judge: str, seen: StreamsSeen) -> Tensor:
        """A judge's log weights ``[streams]``, computed once."""
        if judge not in seen.weights:
            seen.weights[judge] = self._judges[judge](seen).double()
        return seen.weights[judge]

    def _joint(self, seen: StreamsSeen) -> Tensor:
        """Independent lines of evidence together: their log weights add up."""
        parts = ("likelihood_ratio", "retokenisation", "consistency", "intersection", "termination")
        return torch.stack([self._weights(part, seen) for part in parts]).sum(0)

    def _termination(self, seen: StreamsSeen) -> Tensor:
        limit = max(start.max_new_tokens for start in seen.view.of(StartDecode)) + 1
        return termination.weights(seen.view.outputs, self.public.bundle.end_ids, limit)


def _likelihood_ratio(seen: StreamsSeen) -> Tensor:
    """How likely the whole text is in its domain, times how likely the sampler made the others from it.

    ``P(r | prompts)`` is proportional to ``p(prompt r) Q(the others | prompt r)``: the ratio of honeywords, with fakes
    that depend on the secret.
    """
    return seen.evidence.domain.double().sum(1) + seen.evidence.law
