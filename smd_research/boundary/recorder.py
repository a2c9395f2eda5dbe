"""Keeps every frame that crossed, spilling to disk when a view grows large."""

import tempfile
import weakref
from typing import NamedTuple

from smd_research.boundary import wire
from smd_research.boundary.ledger import Direction
from smd_research.boundary.messages import Message

SPILL_BYTES = 64 * 2**20


class _Entry(NamedTuple):
    direction: Direction
    offset: int
    length: int


class Recorder:
    """Frames as bytes, exactly as they crossed, in an anonymous file that stays in memory while it is small."""

    def __init__(self, spill_bytes: int = SPILL_BYTES) -> None:
        self._spill_bytes = spill_bytes
        self._entries: list[_Entry] = []
        self._size = 0
        self._open()

    def _open(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=self._spill_bytes)  # noqa: SIM115 (lives with the recorder)
        self._close = weakref.finalize(self, self._file.close)

    def clear(self) -> None:
        """Forget everything."""
        self._close()
        self._entries.clear()
        self._size = 0
        self._open()

    def keep(self, direction: Direction, frame: bytes | bytearray | memoryview) -> None:
        """Append one frame."""
        self._file.write(frame)
        self._entries.append(_Entry(direction, self._size, len(frame)))
        self._size += len(frame)

    def messages(self) -> tuple[tuple[Direction, Message], ...]:
        """Every message again, decoded from its frame."""
        decoded = []
        for entry in self._entries:
            self._file.seek(entry.offset)
            frame = bytearray(self._file.read(entry.length))
            header = wire.decode_header(frame)
            decoded.append((entry.direction, wire.decode(header.type, memoryview(frame)[wire.HEADER.size :])))
        self._file.seek(self._size)
        return tuple(decoded)

    def received_by_untrusted(self) -> bytes:
        """All bytes the untrusted party received, for a canary test to search."""
        parts = []
        for entry in self._entries:
            if entry.direction is Direction.TO_UNTRUSTED:
                self._file.seek(entry.offset)
                parts.append(self._file.read(entry.length))
        self._file.seek(self._size)
        return b"".join(parts)
