"""A modelled link over counted traffic; its seconds are always labelled as modelled, never mixed with measured ones."""

from dataclasses import dataclass

from smd_research.boundary.ledger import Ledger


@dataclass(frozen=True)
class Link:
    """Latency, bandwidth and per-byte processing of a link between the parties.

    Attributes:
        name: how tables call it.
        round_trip_s: seconds added to each round.
        bytes_per_s: bandwidth, both directions; 0 means unlimited.
        message_s: fixed processing of each message (encryption set-up, bounce buffer).
        byte_s: processing of each byte (encryption, copies through bounce buffers).
        source: where the figures come from.
    """

    name: str
    round_trip_s: float = 0.0
    bytes_per_s: float = 0.0
    message_s: float = 0.0
    byte_s: float = 0.0
    source: str = ""

    def seconds(self, ledger: Ledger) -> float:
        """Modelled seconds of a ledger's traffic on this link (frames included)."""
        wire = ledger.frame_bytes / self.bytes_per_s if self.bytes_per_s else 0.0
        return (
            ledger.rounds * self.round_trip_s
            + wire
            + ledger.messages * self.message_s
            + ledger.frame_bytes * self.byte_s
        )
