"""What a vault does about queries and replies besides answering: the audit, noise, fewer bits; all off by default."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from smd_research.boundary.messages import Query
from smd_research.core.errors import ConfigError
from smd_research.core.guarantee import Guarantee
from smd_research.core.seeds import generator
from smd_research.mechanisms.attention.query_audit import (
    AuditLevel,
    AuditParameters,
    NormBound,
    QueryAudit,
    SpreadBound,
)
from smd_research.mechanisms.attention.reply_noise import (
    ReplyNoise,
    ReplyNoiseParameters,
    ReplyRoundingParameters,
    round_mantissa,
)
from smd_research.mechanisms.privacy.gaussian import gaussian_sigma
from smd_research.models.calibration import Calibration
from smd_research.models.partial_attention import Partial


@dataclass(frozen=True)
class GuardOptions:
    """Counter-measures of a vault; see :class:`smd_research.defenses.smd.Smd` for what each does.

    Raises:
        ConfigError: for a value out of range.
    """

    audit: str = "none"
    audit_slack: float = 1.1
    noise_multiplier: float = 0.0
    noise_epsilon: float | None = None
    noise_delta: float = 1e-5
    noise_log_weight: float = 0.0
    reply_bits: int | None = None

    def __post_init__(self) -> None:
        if self.audit not in list(AuditLevel):
            raise ConfigError(f"defense.audit={self.audit} is unknown: use one of {', '.join(AuditLevel)}")
        if self.audit_slack <= 0:
            raise ConfigError(f"defense.audit_slack={self.audit_slack:g} is out of range: use more than 0")
        if self.noise_epsilon is not None:
            if self.noise_multiplier:
                raise ConfigError("defense.noise_epsilon and defense.noise_multiplier both set the noise: give one")
            gaussian_sigma(self.noise_epsilon, self.noise_delta)
        if min(self.noise_multiplier, self.noise_log_weight) < 0:
            raise ConfigError("defense.noise_multiplier and defense.noise_log_weight must be 0 or more")
        if self.reply_bits is not None and not 1 <= self.reply_bits <= 23:
            raise ConfigError(f"defense.reply_bits={self.reply_bits} is out of range: use 1 to 23, or null for all")

    @property
    def multiplier(self) -> float:
        """Standard deviation of the noise on ``A`` at sensitivity one."""
        if self.noise_epsilon is None:
            return self.noise_multiplier
        return gaussian_sigma(self.noise_epsilon, self.noise_delta)

    @property
    def noisy(self) -> bool:
        """Whether replies carry noise."""
        return bool(self.multiplier or self.noise_log_weight)

    @property
    def calibrated(self) -> bool:
        """Whether public text is needed to set them up."""
        return self.noisy or self.audit in (AuditLevel.NORM, AuditLevel.RANK)

    @property
    def parameters(self) -> tuple[object, ...]:
        """What is published of those that are on."""
        shown: list[object] = []
        if self.audit != AuditLevel.NONE:
            shown.append(AuditParameters(self.audit, self.audit_slack))
        if self.noisy:
            shown.append(ReplyNoiseParameters(self.multiplier, self.noise_log_weight))
        if self.reply_bits:
            shown.append(ReplyRoundingParameters(self.reply_bits))
        return tuple(shown)


class Guards:
    """The counter-measures of one vault.

    Args:
        audit: watches queries, or None.
        noise: noises replies, or None.
        bits: mantissa bits of replies, or None for all.
        seed: of the noise.
    """

    def __init__(self, audit: QueryAudit | None, noise: ReplyNoise | None, bits: int | None, seed: int) -> None:
        self._audit = audit
        self._noise = noise
        self._bits = bits
        self._seed = seed
        self.draw(0)

    @classmethod
    def of(cls, options: GuardOptions, calibration: Calibration | None, layers: Sequence[int], seed: int) -> "Guards":
        """The guards that options ask for.

        Args:
            options: what is asked for.
            calibration: of the model on public text, where ``options.calibrated``.
            layers: layers whose queries an honest provider sends.
            seed: of the noise.
        """
        audit = noise = None
        if options.audit != AuditLevel.NONE:
            bounds: list[NormBound | SpreadBound] = []
            if calibration and options.audit in (AuditLevel.NORM, AuditLevel.RANK):
                bounds.append(NormBound.of(calibration.queries, options.audit_slack))
            if calibration and options.audit == AuditLevel.RANK:
                bounds.append(SpreadBound.of(calibration.queries, options.audit_slack))
            audit = QueryAudit(layers, bounds)
        if calibration and options.noisy:
            sizes = calibration.value_norm, calibration.log_weight
            noise = ReplyNoise(options.multiplier, options.noise_log_weight, *sizes)
        return cls(audit, noise, options.reply_bits, seed)

    def draw(self, number: int) -> None:
        """Take the randomness of that number from now on."""
        self._rng: np.random.Generator = generator(self._seed, "smd", "reply noise", number)

    def begin(self, position: int, steps: int) -> None:
        """A request begins: ``steps`` tokens are decoded from ``position`` on."""
        if self._audit:
            self._audit.begin(position, steps)

    def check(self, query: Query) -> None:
        """Let an honest query pass.

        Raises:
            ProtocolError: for one that the audit refuses.
        """
        if self._audit:
            self._audit.check(query.q, query.layer, query.position)

    def noised(self, shard: Partial, layer: int) -> Partial:
        """A shard with its noise: ``m``, ``g`` ``[streams, heads, 1]``, ``a`` ``[streams, heads, 1, d]``."""
        return self._noise.release(shard, layer, self._rng) if self._noise else shard

    def rounded(self, part: Tensor) -> Tensor:
        """What crosses of a reply, with the bits that it may keep."""
        return round_mantissa(part, self._bits) if self._bits else part

    def guarantee(self, heads: int, delta: float) -> Guarantee | None:
        """What a reply promises; None while anything of it is exact."""
        return self._noise.guarantee(heads, delta) if self._noise else None
