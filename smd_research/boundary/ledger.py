"""The ledger: what a run cost in messages, rounds, bytes and waiting."""

from dataclasses import dataclass, field
from enum import StrEnum


class Direction(StrEnum):
    """Which way a message went."""

    TO_UNTRUSTED = "to untrusted"
    TO_TRUSTED = "to trusted"


@dataclass
class Ledger:
    """Counts over one request, kept at the trusted end (it sees every frame of both directions).

    Attributes:
        messages: frames in both directions.
        rounds: request/reply pairs, i.e. how often one party had to wait for the other.
        bytes_to_untrusted: payload bytes sent by the trusted party.
        bytes_to_trusted: payload bytes sent by the untrusted party.
        frame_bytes: all bytes on the wire, headers and addressing included, both directions.
        payload_of: payload bytes by message type.
        waited_s: seconds the trusted end spent blocked on the transport.
    """

    messages: int = 0
    rounds: int = 0
    bytes_to_untrusted: int = 0
    bytes_to_trusted: int = 0
    frame_bytes: int = 0
    payload_of: dict[str, int] = field(default_factory=dict)
    waited_s: float = 0.0

    def count(self, direction: Direction, kind: str, payload: int, frame: int, *, reply: bool) -> None:
        """Enter one frame of a message type."""
        self.payload_of[kind] = self.payload_of.get(kind, 0) + payload
        self.messages += 1
        self.rounds += reply
        self.frame_bytes += frame
        if direction is Direction.TO_UNTRUSTED:
            self.bytes_to_untrusted += payload
        else:
            self.bytes_to_trusted += payload
