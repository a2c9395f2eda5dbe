"""Memory that processes share, counted once, and what each holds for itself (Linux: ``/proc/PID/smaps``)."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Mapped:
    """What a process has resident of one file, in bytes.

    Attributes:
        rss: pages in its page tables.
        pss: the same, each page divided by the number of processes that map it.
        private: pages that no other process maps.
    """

    rss: int = 0
    pss: int = 0
    private: int = 0

    def __add__(self, other: "Mapped") -> "Mapped":
        return Mapped(self.rss + other.rss, self.pss + other.pss, self.private + other.private)


def mapped(pid: int, inode: int, name: str = "") -> Mapped:
    """What process ``pid`` has resident of the file ``inode`` whose path contains ``name``; zeros where unmapped."""
    total, counts = Mapped(), False
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        field, _, rest = line.partition(" ")
        if not field.endswith(":"):  # the head of a mapping: range, permissions, offset, device, inode, path
            columns = rest.split(maxsplit=4)
            counts = columns[3] == str(inode) and name in "".join(columns[4:])
        elif counts:
            total += _counted(field, rest)
    return total


def _counted(field: str, rest: str) -> Mapped:
    match field:
        case "Rss:":
            return Mapped(rss=_bytes(rest))
        case "Pss:":
            return Mapped(pss=_bytes(rest))
        case "Private_Clean:" | "Private_Dirty:":
            return Mapped(private=_bytes(rest))
        case _:
            return Mapped()


def _bytes(text: str) -> int:
    return int(text.split()[0]) * 1024


def shared_once(pids: Iterable[int], inode: int, name: str = "") -> int:
    """Bytes of a file resident in a set of processes, each page counted once.

    Exact when no process outside the set maps the file; a page that one does is counted in part.
    """
    return sum(mapped(pid, inode, name).pss for pid in pids)


def private_bytes(pid: int) -> int:
    """Unique set size: bytes that would be free if the process ended, the shared ones not among them."""
    return int(psutil.Process(pid).memory_full_info().uss)


def resident_once(pids: Iterable[int]) -> int:
    """Bytes resident in a set of processes, shared pages divided among their sharers (proportional set size)."""
    return sum(_rollup(pid) for pid in pids)


def _rollup(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Pss:"):
            return _bytes(line.split(":", 1)[1])
    return 0
