"""The ledger: what a run cost in messages, rounds, bytes and waiting."""

from dataclasses import dataclass
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
        waited_s: seconds the trusted end spent blocked on the transport.
    """

    messages: int = 0
    rounds: int = 0
    bytes_to_untrusted: int = 0
    bytes_to_trusted: int = 0
    frame_bytes: int = 0
    waited_s: float = 0.0

    def count(self, direction: Direction, payload: int, frame: int, *, reply: bool) -> None:
        """Enter one frame."""
        self.messages += 1
        self.rounds += reply
        self.frame_bytes += frame
        if direction is Direction.TO_UNTRUSTED:
            self.bytes_to_untrusted += payload
        else:
            self.bytes_to_trusted += payload
