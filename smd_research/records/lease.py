"""Who runs a cell now: a lease in the results folder, so that two sweeps over the same cells share them.

``<results_dir>/claims/<readable>-<id>.json`` names the owner and when its lease ends. It is renewed while the cell runs
and removed after it. One that ended is taken over, and so is, at once, one whose owner was a process of this machine
that no longer lives; of another machine's it is known by the end alone, at most three minutes after the last renewal.
Time is that of the file system, so that the clocks of machines that share it need not agree.
A lease saves work and guards nothing: records are written whole by whoever ran the cell, so that two owners, should
there ever be two, only do the same work twice.
"""

import contextlib
import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from smd_research.core.cell import Cell
from smd_research.core.errors import RecordError
from smd_research.records.machine import machine

LEASE_S = 180.0
"""Seconds after which a lease that nobody renews is over."""

_RENEWED_AFTER_S = 30.0
_ASKED_AGAIN_AFTER_S = 0.5
_BELIEVED_S = 3600.0


@dataclass(frozen=True)
class Lease:
    """A claim on a cell.

    Attributes:
        machine: digest that names the owner's machine, so that no host name is left in a folder that people share.
        pid: the owner's process there.
        started: when that process began, in seconds since the epoch: a number may serve another process later.
        nonce: tells this claim from all others.
        expires: when it ends unless it is renewed, in seconds since the epoch.
    """

    machine: str
    pid: int
    started: float
    nonce: str
    expires: float

    @property
    def here(self) -> bool:
        """Whether its owner is a process of this machine."""
        return self.machine == machine()

    def holds(self, now: float) -> bool:
        """Whether its owner still has the cell, as far as this machine can tell."""
        # An end far ahead is none: a broken clock or file must not keep a cell for ever.
        return now < self.expires < now + _BELIEVED_S and (not self.here or self._lives())

    def _lives(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            # One that was killed keeps its number until its parent asks for it, in many a container for good.
            return abs(process.create_time() - self.started) < 5 and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, ValueError, OverflowError):  # or no number that a process has
            return False
        except psutil.Error:
            return True


class Leases:
    """The claims on the cells of a results folder.

    Args:
        results_dir: the folder that holds ``cells/``.
        seconds: how long a lease lasts without being renewed.
        clock: seconds since the epoch; None for the file system's, which all machines that share the folder read.
    """

    def __init__(
        self,
        results_dir: str | os.PathLike[str],
        seconds: float = LEASE_S,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._folder = Path(results_dir) / "claims"
        self._lock = self._folder / ".lock"
        self._seconds = seconds
        self._clock = clock or self._time_there

    def claim(self, cell: Cell) -> Lease | None:
        """Take the lease of a cell, or None when another run has it.

        Raises:
            RecordError: when nothing can be written there.
        """
        with self._alone():
            held = self._read(cell)
            if held is not None and held.holds(self._clock()):
                return None
            process = psutil.Process()
            lease = Lease(machine(), process.pid, process.create_time(), secrets.token_hex(8), 0)
            return self._write(cell, lease, first=not self._file(cell).exists())

    def renew(self, cell: Cell, lease: Lease) -> bool:
        """Put off the end of a lease; False when another run has taken the cell over.

        Raises:
            RecordError: when nothing can be written there.
        """
        with self._alone():
            ours = self._is(cell, lease)
            if ours:
                self._write(cell, lease)
            return ours

    def release(self, cell: Cell, lease: Lease) -> None:
        """Give a lease back; nothing happens where it is another's by now."""
        with contextlib.suppress(RecordError), self._alone():
            if self._is(cell, lease):
                path = self._file(cell)
                for file in (path, *self._folder.glob(f".{path.name}.*")):  # and what killed owners left of a new one
                    file.unlink(missing_ok=True)

    def holder(self, cell: Cell) -> Lease | None:
        """Whose lease a cell is under now; None where it can be claimed.

        Raises:
            RecordError: when nothing can be written there.
        """
        with self._alone():
            held = self._read(cell)
            return held if held is not None and held.holds(self._clock()) else None

    @contextlib.contextmanager
    def held(self, cell: Cell, waiting: Callable[[Lease | None], object] = lambda _: None) -> Iterator[bool]:
        """Hold the lease of a cell, renewed meanwhile; waits as long as another run has it.

        Whoever gets it looks the record up again: another run may have left it in between.

        Args:
            cell: to be run.
            waiting: told once, before the first wait, who has it.

        Yields:
            Whether it had to be waited for.

        Raises:
            RecordError: when nothing can be written there.
        """
        waited = False
        while (lease := self.claim(cell)) is None:
            if not waited:
                waiting(self._read(cell))
            waited = True
            time.sleep(_ASKED_AGAIN_AFTER_S)
        over = threading.Event()
        renewing = threading.Thread(target=self._renew_until, args=(over, cell, lease), daemon=True)
        renewing.start()
        try:
            yield waited
        finally:
            over.set()
            renewing.join()
            self.release(cell, lease)

    def _renew_until(self, over: threading.Event, cell: Cell, lease: Lease) -> None:
        while not over.wait(min(_RENEWED_AFTER_S, self._seconds / 3)):
            with contextlib.suppress(RecordError):  # a disk that is full now may not be at the next turn
                if not self.renew(cell, lease):
                    return

    def _file(self, cell: Cell) -> Path:
        return self._folder / f"{cell.readable}-{cell.id}.json"

    def _is(self, cell: Cell, lease: Lease) -> bool:
        held = self._read(cell)
        return held is not None and held.nonce == lease.nonce

    def _read(self, cell: Cell) -> Lease | None:
        """The claim on a cell, None where there is none or it is no claim."""
        path = self._file(cell)
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_bytes())
            return Lease(
                str(found["machine"]), int(found["pid"]), float(found["started"]), str(found["nonce"]),
                float(found["expires"]),
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None

    def _write(self, cell: Cell, lease: Lease, *, first: bool = False) -> Lease | None:
        """Write a claim with a new end; a reader sees the old or the new.

        Args:
            cell: that is claimed.
            lease: of it.
            first: whether there must be none yet; then one of two gets it even where a file system has no locks.

        Returns:
            The lease; None where there was one.
        """
        renewed = Lease(lease.machine, lease.pid, lease.started, lease.nonce, self._clock() + self._seconds)
        path = self._file(cell)
        aside = path.with_name(f".{path.name}.{lease.nonce}")
        aside.write_text(json.dumps(asdict(renewed)), encoding="utf-8")
        if first and not _linked(aside, path):
            return None
        if not first:
            aside.replace(path)
        return renewed

    def _time_there(self) -> float:
        """The time of the file system, whose clock stamps a file that is touched."""
        os.utime(self._lock)
        return self._lock.stat().st_mtime

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only one who changes claims, here and on other machines as far as their file system has locks."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._lock.open("w") as lock:
                with contextlib.suppress(OSError):
                    fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise RecordError(
                f"cannot write {self._folder}: {error.strerror or error}; free space or choose another results_dir="
            ) from error


def _linked(aside: Path, path: Path) -> bool:
    """Give a file its name unless another has it; whether it got it."""
    try:
        path.hardlink_to(aside)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        aside.replace(path)
        return True
    finally:
        aside.unlink(missing_ok=True)
    return True
