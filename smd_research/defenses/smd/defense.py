"""Secure multi-party decoding (SMD, later SPD; arXiv 2409.19134) as a defense: one user, exact.

A trusted vault prefills the prompt and keeps its keys and values; the provider decodes. In each layer the provider
sends its query, the vault answers with the attention over the prompt's keys (m, g, A), and the provider merges it with
the attention over the generated tokens' keys (Theorem 1). The provider never receives the prompt's ids, keys or values;
after the prefill the vault touches no weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from smd_research.boundary import Boundary
from smd_research.core.errors import ConfigError
from smd_research.core.observable import Observable
from smd_research.defenses.base import NO_TEXT, Defense, Deployment, Memory, Prepared, PublicText
from smd_research.defenses.smd.decode import DecodeService
from smd_research.defenses.smd.guards import GuardOptions, Guards
from smd_research.defenses.smd.requests import SendOrder, ServiceOptions
from smd_research.defenses.smd.vault import Vault
from smd_research.mechanisms.attention.exchange import ExchangeParameters, MergePlace, ReplyForm
from smd_research.models.bundle import Bundle
from smd_research.models.calibration import Calibration, calibrate
from smd_research.models.hooked import HookedModel
from smd_research.models.sources import DTYPES

SHOWS = frozenset({Observable.QUERIES, Observable.OUTPUT_TOKENS, Observable.LENGTH})


class SmdDeployment(Deployment):
    """A vault and a decode service.

    Args:
        bundle: the model.
        boundary: joins the parties.
        defense: its configuration.
        guards: what the vault does besides answering; None does nothing.
    """

    def __init__(self, bundle: Bundle, boundary: Boundary, defense: "Smd", guards: Guards | None = None) -> None:
        options = defense.service_options
        self.vault = Vault(
            options.wire_dtype,
            options.inner_layers,
            guards,
            ReplyForm(defense.exchange.reply),
            options.merge,
        )
        super().__init__(bundle, boundary, self.vault, defense.shows)
        self._guards = guards
        self._public_tokens = defense.exchange.public_tokens
        self._prefill_model = HookedModel(bundle)
        self._inner = HookedModel(bundle, None, options.inner_layers) if options.inner_layers else None
        self._channel = boundary.open(self.vault, partial(DecodeService, bundle, options))

    def _begin(self, draw: int | None = None) -> None:
        super()._begin(draw)
        if self._guards:
            self._guards.draw(self.draw)

    def _request(self, ids: Sequence[int], max_new_tokens: int, forced: Sequence[int] | None) -> list[Tensor]:
        public = list(ids[: min(max(self._public_tokens, len(self.wrapper.head)), len(ids) - 1)])
        prompts = torch.tensor([list(ids)], device=self.bundle.device)
        logits = self.vault.prefill(self._prefill_model, prompts, len(public))
        if forced is not None:
            self.boundary.tap("arm", forced[1:])
        self.vault.decode(
            self._channel,
            logits,
            public=public,
            max_new_tokens=max_new_tokens,
            end_ids=() if forced is not None else self.bundle.end_ids,
            forced=None if forced is None else forced[0],
            inner=self._inner,
        )
        return [] if forced is None else [logits[0], *(step[0] for step in self.tapped())]

    def memory(self) -> Memory:
        held = self.boundary.tap("memory")
        return Memory(held["weights"], self.vault.store.nbytes, held["kv"])


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class SmdPrepared(Prepared):
    """A model that is served as it is, and what the vault's counter-measures were set up with.

    Attributes:
        defense: the configuration.
        calibration: of the model on public text, where the counter-measures need one.
    """

    defense: "Smd"
    calibration: Calibration | None

    def deploy(self, boundary: Boundary) -> SmdDeployment:
        """Start the two parties."""
        guards = self.defense.guards_of(self.bundle, self.calibration, self.seed)
        return SmdDeployment(self.bundle, boundary, self.defense, guards)


class Smd(Defense):
    """Secure multi-party decoding.

    Args:
        wire_dtype: ``fp32``, ``fp16`` or ``bf16`` for queries and attention on the wire. Exact to fp32 rounding with
            ``fp32`` only: a 16-bit wire moves the merged vector by about 1e-3 relative.
        send_order: when a layer's queries leave: ``after_q`` (before keys and values are computed), ``after_kv`` or
            ``after_attention`` (after the provider's own attention). Changes time only.
        public_tokens: leading prompt tokens that are no secret (a system prompt); their keys are the provider's. Those
            that a chat template puts first always are, and count among them.
        inner_layers: decode layers that run in the vault before the provider's first, a counter-measure: their queries
            and replies never cross, the states after them do.
        audit: what the vault looks at in a query, a counter-measure against a provider that chooses its queries:
            ``none``, ``schedule`` (each layer once a token, in order), ``norm`` (and its length) or ``rank`` (and its
            direction); what it refuses ends the request.
        audit_slack: factor on what public text's queries reach, for ``norm`` and ``rank``.
        noise_multiplier: Gaussian noise on ``A``, as deviation over sensitivity. Breaks output invariance, and hides
            nothing by itself: ``m`` and ``g`` stay exact.
        noise_epsilon: sets ``noise_multiplier`` by the analytic Gaussian mechanism, for ``A`` of one reply.
        noise_delta: its delta, and that of the guarantee.
        noise_log_weight: Gaussian noise on ``m + log g``, in nats; with both there is a guarantee. Breaks invariance.
        reply_bits: mantissa bits that what crosses of a reply is rounded to; None keeps all. Breaks invariance.
        reply: ``mga``, or ``lse``, a counter-measure: ``l = m + log g`` crosses in place of both, which is all that the
            merge needs; no row names its largest score any more.
        merge: ``provider``, or ``vault``, a counter-measure: the provider sends its own attention with its queries
            (``send_order`` has no say then) and is sent the merged rows; whoever claims an own attention of no weight
            is sent ``A`` all the same.

    Raises:
        ConfigError: for a value out of range.
    """

    def __init__(
        self,
        wire_dtype: str = "fp32",
        send_order: str = "after_q",
        public_tokens: int = 0,
        inner_layers: int = 0,
        audit: str = "none",
        audit_slack: float = 1.1,
        noise_multiplier: float = 0.0,
        noise_epsilon: float | None = None,
        noise_delta: float = 1e-5,
        noise_log_weight: float = 0.0,
        reply_bits: int | None = None,
        reply: str = "mga",
        merge: str = "provider",
    ) -> None:
        if wire_dtype not in DTYPES:
            raise ConfigError(f"wire_dtype={wire_dtype} is unknown: use one of {', '.join(DTYPES)}")
        if send_order not in list(SendOrder):
            raise ConfigError(f"defense.send_order={send_order} is unknown: use one of {', '.join(SendOrder)}")
        for name, value, words in (("reply", reply, ReplyForm), ("merge", merge, MergePlace)):
            if value not in list(words):
                raise ConfigError(f"defense.{name}={value} is unknown: use one of {', '.join(words)}")
        if public_tokens < 0 or inner_layers < 0:
            raise ConfigError("defense.public_tokens and defense.inner_layers count from 0")
        self.exchange = ExchangeParameters(wire_dtype, send_order, public_tokens, inner_layers, reply, merge)
        self.guards = GuardOptions(
            audit, audit_slack, noise_multiplier, noise_epsilon, noise_delta, noise_log_weight, reply_bits
        )

    @property
    def service_options(self) -> ServiceOptions:
        """What the provider is configured with."""
        exchange = self.exchange
        return ServiceOptions(
            DTYPES[exchange.wire_dtype],
            SendOrder(exchange.send_order),
            exchange.inner_layers,
            MergePlace(exchange.merge),
        )

    @property
    def parameters(self) -> tuple[object, ...]:
        """Public parameters, known from the configuration alone."""
        return (self.exchange, *self.guards.parameters)

    @property
    def shows(self) -> frozenset[Observable]:
        replies = {Observable.PARTIAL_ATTENTION}
        if self.exchange.merge == MergePlace.VAULT:
            replies = {Observable.MERGED_ATTENTION}
        if self.exchange.inner_layers:
            replies |= {Observable.OUTPUT_STATES}
        return SHOWS | replies

    def prepare(
        self, bundle: Bundle, public_text: PublicText = NO_TEXT, seed: int = 0, folder: Path | None = None
    ) -> SmdPrepared:
        inner = self.exchange.inner_layers
        if inner >= bundle.geometry.layers:
            raise ConfigError(
                f"defense.inner_layers={inner} leaves the provider no layer: {bundle.name} has {bundle.geometry.layers}"
            )
        calibration = calibrate(bundle, public_text.corpus) if self.guards.calibrated else None
        guards = self.guards_of(bundle, calibration, seed)
        return SmdPrepared(
            bundle=bundle,
            public=bundle,
            base=bundle,
            parameters=self.parameters,
            guarantee=guards.guarantee(bundle.geometry.heads, self.guards.noise_delta) if guards else None,
            shows=self.shows,
            seed=seed,
            defense=self,
            calibration=calibration,
        )

    def guards_of(self, bundle: Bundle, calibration: Calibration | None, seed: int) -> Guards | None:
        """Fresh counter-measures for one vault; None where all are off.

        Args:
            bundle: the model.
            calibration: of it on public text, where they need one.
            seed: of their noise.
        """
        if not self.guards.parameters:
            return None
        return Guards.of(self.guards, calibration, range(self.exchange.inner_layers, bundle.geometry.layers), seed)
