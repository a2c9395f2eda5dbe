"""A modelled link over counted traffic; its seconds are always labelled as modelled, never mixed with measured ones.

How the confidential-computing links are calibrated. Figure 7 of arXiv 2409.19134v5 breaks a decode step of Llama 3 8B
with 32 users down: switching confidential computing off makes the whole about a third and its communication about five
times smaller. With ``R`` the seconds of everything else and ``C`` those of communication,

    C + R = 3 (C/5 + R),  hence  C = 5 R,

so communication is 5/6 of a step with confidential computing and half of it without. The figure prints no seconds:
``R`` is read off Figure 6, whose axis runs from 0.10 to 0.22 seconds a token at 8 users, which over a total of 5 to 6
``R`` is about 0.03 seconds. One step at that shape sends ``2 L U = 2048`` messages (32 layers, 32 users) of 17.0 MB in
all. Bytes cost what PCIe 5 x16 takes, 5e10 a second, without confidential computing; the rest of ``C`` is a cost of
each message; and with confidential computing each of the two costs is five times as large. ``conf/link`` holds the
results; ``tests/boundary/test_link.py`` holds them against the ratios.
"""

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
        return self.seconds_of(ledger.messages, ledger.rounds, ledger.frame_bytes)

    def seconds_of(self, messages: float, rounds: float, frame_bytes: float) -> float:
        """Modelled seconds of counted traffic, for example of one decode step.

        Args:
            messages: in both directions; each is processed in turn.
            rounds: how often one party waits for the other; messages to several users at once share a round.
            frame_bytes: on the wire, both directions.
        """
        wire = frame_bytes / self.bytes_per_s if self.bytes_per_s else 0.0
        return rounds * self.round_trip_s + wire + messages * self.message_s + frame_bytes * self.byte_s
