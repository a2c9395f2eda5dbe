"""What secure multi-party decoding publishes of the exchange between a vault and its decode service."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ExchangeParameters:
    """How queries and replies cross.

    Attributes:
        wire_dtype: their type on the wire, e.g. ``fp32``.
        send_order: when a layer's queries leave; changes time only.
        public_tokens: leading prompt tokens that are no secret.
        inner_layers: decode layers that run in the vault: what would cross of them never does.
    """

    wire_dtype: str = "fp32"
    send_order: str = "after_q"
    public_tokens: int = 0
    inner_layers: int = 0
