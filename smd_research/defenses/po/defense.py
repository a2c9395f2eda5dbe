"""Prompt Obfuscation (PO; arXiv 2409.19134 v1-v4, dropped in v5) on top of secure multi-party decoding.

The provider decodes ``lambda + 1`` streams at once: the authentic prompt and virtual ones, whose secret spans are fakes
that the model finds about as likely (Greedy Quantized Sampling, ``mechanisms.decoys.quantised_sampling``, which says
what is reconstructed). All streams look alike in messages, sizes and schedule; which one is authentic is uniform, and
only the user knows. It caps what an attacker gains who reads every stream's prompt: which is real stays open, up to the
posterior that the fakes leave.
"""

import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from smd_research.boundary import Boundary
from smd_research.core.errors import ConfigError, PromptError, RefusedError
from smd_research.core.guarantee import Guarantee
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.data.prompts import Prompt, TokenSpan, moved
from smd_research.data.tagger import tag_prompt
from smd_research.defenses.base import NO_TEXT, Defense, Deployment, Generation, Memory, Prepared, PublicText
from smd_research.defenses.po.vault import PoVault
from smd_research.defenses.smd import Smd
from smd_research.defenses.smd.decode import DecodeService
from smd_research.mechanisms.decoys.quantised_sampling import Decoys, draw_secret, sample
from smd_research.mechanisms.decoys.quantiser import DecoyParameters, Metric, Quantiser, claimed_bound
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel

Construction = Literal["full", "multiplexed"]
SpanSource = Literal["gold", "tagger"]
Unmarked = Literal["whole", "refuse"]
Secrets = Literal["given", "law"]
_REDRAWN = 50


class UnmarkedWarning(UserWarning):
    """Prompts mark no secret, and are hidden whole."""


class PoDeployment(Deployment):
    """A vault of several streams and an ordinary decode service."""

    def __init__(self, bundle: Bundle, boundary: Boundary, defense: "Po", seed: int) -> None:
        options = defense.transport.service_options
        self.vault = PoVault(options.wire_dtype, defense.quantiser, defense.sticky)
        super().__init__(bundle, boundary, self.vault, defense.shows)
        self._defense = defense
        self._seed = seed
        self._prompt: Prompt | None = None
        self._facts: dict[str, float] = {}
        self._waits: dict[str, float] = {}
        self._model = HookedModel(bundle)
        self._channel = boundary.open(self.vault, partial(DecodeService, bundle, options))

    @property
    def facts(self) -> Mapping[str, float]:
        return dict(self._facts)

    @property
    def waits(self) -> Mapping[str, float]:
        return dict(self._waits)

    @property
    def outputs(self) -> tuple[tuple[int, ...], ...]:
        return tuple(map(tuple, self.vault.outputs))

    def generate(self, prompt: Prompt, max_new_tokens: int, draw: int | None = None) -> Generation:
        """Serve a prompt, ``requests`` times over; the answer and its times are the first request's.

        Raises:
            PromptError: as every defense.
            RefusedError: for a secret that too few fakes are found for.
        """
        self._prompt = prompt
        return super().generate(prompt, max_new_tokens, draw)

    def warm_up(self, prompt: Prompt, max_new_tokens: int, draw: int | None = None) -> None:
        """Decode as many streams, all of the prompt itself: fakes drawn here would be drawn twice, or kept."""
        self.bundle.check_prompt(len(prompt.ids), max_new_tokens)
        self._begin(draw)
        rows = torch.tensor([prompt.ids] * (self._defense.quantiser.fakes + 1), device=self.bundle.device)
        self._serve(rows, 0, self._defense.spans_of(prompt, self.bundle), max_new_tokens, None)

    def _request(self, ids: Sequence[int], max_new_tokens: int, forced: Sequence[int] | None) -> list[Tensor]:
        spans = self._defense.spans_of(self._prompt_of(ids), self.bundle)
        if forced is not None:
            return self._one(0, ids, spans, max_new_tokens, forced)
        self._facts = {}
        answers = []
        for repetition in range(self._defense.requests):
            self.client.restart()
            self._one(repetition, ids, spans, max_new_tokens, None)
            answers.append((self.vault.ids, self.vault.times, self.vault.outputs))
        self.vault.ids, self.vault.times, self.vault.outputs = answers[0]
        return []

    def _prompt_of(self, ids: Sequence[int]) -> Prompt:
        """The prompt last served when these are its ids, else one without marks."""
        if self._prompt is not None and self._prompt.ids == tuple(ids):
            return self._prompt
        return Prompt("", self.bundle.decode(list(ids)), tuple(ids))

    def _one(
        self,
        repetition: int,
        ids: Sequence[int],
        spans: Sequence[TokenSpan],
        max_new_tokens: int,
        forced: Sequence[int] | None,
    ) -> list[Tensor]:
        """One request: disguise, then serve."""
        began = time.perf_counter()
        fakes, places = (generator(self._seed, "po", name, self.draw, repetition) for name in ("fakes", "place"))
        decoys = self.vault.disguise(self.bundle, ids, spans, fakes)
        if not self._facts:
            self._facts = self._defense.facts(decoys)
            self._waits = {"sampling_ms": 1e3 * (time.perf_counter() - began)}
        place = int(places.integers(len(decoys.ids)))
        prompts = torch.cat([decoys.ids[1 : place + 1], decoys.ids[:1], decoys.ids[place + 1 :]])
        return self._serve(prompts, place, spans, max_new_tokens, forced)

    def _serve(
        self,
        prompts: Tensor,
        place: int,
        spans: Sequence[TokenSpan],
        max_new_tokens: int,
        forced: Sequence[int] | None,
    ) -> list[Tensor]:
        """Prefill and decode the streams ``prompts [streams, n]``, of which the authentic one stands at ``place``."""
        self.vault.authentic = place
        if self._defense.construction == "full":
            logits = self.vault.prefill_full(self._model, prompts, spans[0].start)
        else:
            logits = self.vault.prefill_multiplexed(self._model, prompts, spans)
        end_ids = self.bundle.end_ids if forced is None else ()
        self.vault.expect(end_ids)
        if forced is not None:
            self.boundary.tap("arm", forced[1:])
        self.vault.decode(
            self._channel,
            logits,
            max_new_tokens=max_new_tokens,
            end_ids=end_ids,
            forced=None if forced is None else forced[0],
        )
        return [] if forced is None else [logits[place], *(step[place] for step in self.tapped())]

    def memory(self) -> Memory:
        held = self.boundary.tap("memory")
        return Memory(held["weights"], self.vault.store.nbytes, held["kv"])


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class PoPrepared(Prepared):
    """A model that is served as it is, to several streams.

    Attributes:
        defense: the configuration.
    """

    defense: "Po"

    def deploy(self, boundary: Boundary) -> PoDeployment:
        """Start the two parties."""
        return PoDeployment(self.bundle, boundary, self.defense, self.seed)

    def stage(self, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
        """The evaluation prompts, their secrets drawn from the law where the bound supposes that.

        Warns:
            UnmarkedWarning: where some mark no secret and are hidden whole.
        """
        self.defense.check_marks(self.bundle, prompts)
        return self.defense.staged(self.bundle, prompts, self.seed)


class Po(Defense):
    """Prompt Obfuscation.

    Args:
        fakes: virtual prompts beside the authentic one (the paper's lambda).
        metric: bins of the sampler: ``grid``, ``rel`` or ``abs``; see ``Quantiser``.
        epsilon: their width.
        temperature: of the sampler's model.
        tries: paths drawn for each stream before a bin is widened.
        widenings: how often it may be widened before the prompt is refused.
        canonical: draw only fakes that the tokenizer itself would write.
        construction: ``full`` prefills every virtual prompt whole; ``multiplexed`` is the released code's, which shares
            the text after a secret and gives the authentic stream away.
        sticky: a secret keeps its fakes, over requests and prompts; else every request draws new ones.
        spans: ``gold`` (the marks that came with the data) or ``tagger`` (rules; see ``data.tagger``).
        unmarked: a prompt without a secret is treated as a secret (``whole``) or refused (``refuse``).
        requests: how often the user sends each prompt.
        secrets: ``given`` by the data, or drawn from the sampler's own ``law`` in their place, as the bound supposes.
        wire_dtype: as for ``smd``.
        send_order: as for ``smd``.

    Raises:
        ConfigError: for an unknown name or a value out of range.
    """

    def __init__(
        self,
        fakes: int = 7,
        metric: Metric = "grid",
        epsilon: float = 0.1,
        temperature: float = 1.0,
        tries: int = 4,
        widenings: int = 6,
        canonical: bool = True,
        construction: Construction = "full",
        sticky: bool = True,
        spans: SpanSource = "gold",
        unmarked: Unmarked = "whole",
        requests: int = 1,
        secrets: Secrets = "given",
        wire_dtype: str = "fp32",
        send_order: str = "after_q",
    ) -> None:
        for name, value, known in (
            ("construction", construction, get_args(Construction)),
            ("spans", spans, get_args(SpanSource)),
            ("unmarked", unmarked, get_args(Unmarked)),
            ("secrets", secrets, get_args(Secrets)),
        ):
            if value not in known:
                raise ConfigError(f"defense.{name}={value} is unknown: use one of {', '.join(known)}")
        if requests < 1:
            raise ConfigError(f"defense.requests={requests}: at least 1")
        self.quantiser = Quantiser(metric, epsilon, temperature, fakes, tries, widenings, canonical)
        self.construction = construction
        self.sticky = sticky
        self.spans = spans
        self.unmarked = unmarked
        self.requests = requests
        self.secrets = secrets
        self.transport = Smd(wire_dtype, send_order)

    @property
    def shows(self) -> frozenset[Observable]:
        return self.transport.shows

    @property
    def parameters(self) -> tuple[object, ...]:
        """Public parameters, known from the configuration alone."""
        decoys = DecoyParameters(self.construction, self.sticky, self.spans, self.unmarked, self.requests, self.secrets)
        return (*self.transport.parameters, self.quantiser, decoys)

    def spans_of(self, prompt: Prompt, bundle: Bundle) -> tuple[TokenSpan, ...]:
        """What of a prompt is secret.

        Raises:
            RefusedError: where nothing is, and that is refused.
        """
        spans = self.marked(prompt, bundle)
        if spans:
            return spans
        if self.unmarked == "refuse":
            raise RefusedError(
                f"the prompt marks no secret: {self._mending}, or defense.unmarked=whole to hide all of it"
            )
        return moved(_text_spans(prompt.unwrapped.ids, bundle), len(prompt.wrapper.head))

    def marked(self, prompt: Prompt, bundle: Bundle) -> tuple[TokenSpan, ...]:
        """The secrets that a prompt marks, or that the rules find."""
        if self.spans == "gold":
            return prompt.spans
        return moved(tag_prompt(prompt.unwrapped, bundle.tokenizer), len(prompt.wrapper.head))

    def check_marks(self, bundle: Bundle, prompts: Sequence[Prompt]) -> None:
        """Warns, in one line, of prompts that are hidden whole because they mark no secret."""
        bare = [prompt for prompt in prompts if not self.marked(prompt, bundle)] if self.unmarked == "whole" else []
        if bare:
            longest = max(len(prompt.unwrapped.ids) for prompt in bare)
            warnings.warn(
                f"{len(bare)} of {len(prompts)} prompts mark no secret: each is hidden whole, as one secret of up to "
                f"{longest} tokens, which takes long and needs wide bins; {self._mending}, or set "
                "defense.unmarked=refuse to leave them out",
                UnmarkedWarning,
                stacklevel=2,
            )

    @property
    def _mending(self) -> str:
        return "mark one in the data" + (", or take defense.spans=tagger" if self.spans == "gold" else "")

    def facts(self, decoys: Decoys) -> dict[str, float]:
        """What the vault can say of a request's fakes."""
        quantiser = self.quantiser
        levels = [level for level in decoys.widened if level is not None]
        widened = quantiser.epsilons[max(levels, default=0)]
        claimed = {"nominal_bound": claimed_bound(quantiser.fakes, widened)} if self.promises else {}
        return {
            "eps_eff": decoys.weights.eps_eff,
            "widened_epsilon": widened,
            **claimed,
        }

    @property
    def promises(self) -> bool:
        """Whether a bound is claimed: not of the released construction, nor of bins that weigh no fake (rel, abs)."""
        return self.construction == "full" and self.quantiser.metric == "grid"

    def staged(self, bundle: Bundle, prompts: Sequence[Prompt], seed: int) -> Sequence[Prompt]:
        """The prompts with their secrets drawn from the sampler's law, where ``secrets=law`` asks for that."""
        if self.secrets == "given":
            return prompts
        staged = []
        for prompt in prompts:
            staged.append(prompt)
            with suppress(RefusedError):  # one without marks, if it is refused: by the request
                staged[-1] = self._redrawn(bundle, prompt, generator(seed, "po", "law", prompt.id))
        return staged

    def _redrawn(self, bundle: Bundle, prompt: Prompt, rng: np.random.Generator) -> Prompt:
        """The prompt with secrets drawn from the law; those that the sampler refuses are drawn anew.

        Where it refuses every one, the last stays: the request is the place to refuse a prompt.
        """
        spans, ids = self.spans_of(prompt, bundle), prompt.ids
        for _ in range(_REDRAWN):
            ids = draw_secret(bundle, prompt.ids, spans, self.quantiser, rng)
            with suppress(RefusedError):
                sample(bundle, ids, spans, self.quantiser, rng)
                break
        return replace(prompt, ids=ids, text=bundle.decode(ids[prompt.place]), spans=spans)

    def prepare(
        self, bundle: Bundle, public_text: PublicText = NO_TEXT, seed: int = 0, folder: Path | None = None
    ) -> PoPrepared:
        return PoPrepared(
            bundle=bundle,
            public=bundle,
            base=bundle,
            parameters=self.parameters,
            guarantee=self._claim(),
            shows=self.shows,
            seed=seed,
            defense=self,
        )

    def _claim(self) -> Guarantee | None:
        """The claim of PO, with what it rests on, at the widest bins that it may use for a request."""
        if not self.promises:
            return None
        quantiser = self.quantiser
        return Guarantee(
            notion="success in naming the authentic stream at most 1/(fakes+1) + epsilon",
            unit="request",
            epsilon=quantiser.epsilons[-1],
            adjacency=f"{quantiser.fakes} fakes, metric {quantiser.metric}",
            composition="sticky fakes: no more over repeated requests"
            if self.sticky
            else "repeated requests intersect",
            assumptions=(
                "secrets as the sampler's own model draws them given the text before them, spans of one prompt; "
                f"without widening epsilon is {quantiser.epsilon:g}: see widened_epsilon; real secrets, other models "
                "and text after a span give more: see eps_eff and the attackers"
            ),
            verified="tests/mechanisms/test_quantised_sampling.py",
            source="arXiv 2409.19134 v1-v4, bound second-hand",
        )


def _text_spans(ids: Sequence[int], bundle: Bundle) -> tuple[TokenSpan, ...]:
    """All stretches of tokens that are not special."""
    spans, start = [], 0
    for special, group in groupby(ids, key=lambda token: token in bundle.special_ids):
        end = start + len(list(group))
        if not special:
            spans.append(TokenSpan(start, end, "prompt"))
        start = end
    if not spans:
        raise PromptError("the prompt holds special tokens only: there is nothing to hide")
    return tuple(spans)
