"""What secure multi-party decoding publishes of the exchange between a vault and its decode service."""

from dataclasses import dataclass
from enum import StrEnum


class ReplyForm(StrEnum):
    """What of a query's row maximum ``m``, exponential sum ``g`` and attention ``A`` the vault answers with."""

    MGA = "mga"
    LSE = "lse"


class MergePlace(StrEnum):
    """Who merges the attention over the prompt with that over the generated tokens."""

    PROVIDER = "provider"
    VAULT = "vault"


@dataclass(frozen=True)
class ExchangeParameters:
    """How queries and replies cross.

    Attributes:
        wire_dtype: their type on the wire, e.g. ``fp32``.
        send_order: when a layer's queries leave; changes time only.
        public_tokens: leading prompt tokens that are no secret.
        inner_layers: decode layers that run in the vault: what would cross of them never does.
        reply: ``mga``, or ``lse`` where ``l = m + log g`` crosses in place of both.
        merge: ``provider``, or ``vault`` where the provider sends its own attention and is sent the merged rows.
    """

    wire_dtype: str = "fp32"
    send_order: str = "after_q"
    public_tokens: int = 0
    inner_layers: int = 0
    reply: str = ReplyForm.MGA
    merge: str = MergePlace.PROVIDER
