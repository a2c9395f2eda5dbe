"""Where cancellation masks are kept while a session lasts: in memory, or in a folder for those that memory cannot hold.

Nothing outlives its session. Masks are made from a nonce that each opening of a bank draws anew (see ``bank``), and
the nonce is kept nowhere: what a folder still holds of an earlier opening, or what a restored backup brought back, is
of no use to any other and is removed. So there is no state that could be rolled back.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smd_research.core.errors import ConfigError


@dataclass(frozen=True, repr=False)
class Cancellations:
    """``c [rows, m]`` of consecutive uses from ``first`` on."""

    first: int
    c: Tensor

    @property
    def end(self) -> int:
        """The use after the last."""
        return self.first + len(self.c)


class MaskStorage(ABC):
    """Cancellations of every product as runs of consecutive uses.

    Args:
        products: their numbers.
    """

    def __init__(self, products: Iterable[int]) -> None:
        self._runs: dict[int, deque[Cancellations]] = {product: deque() for product in products}
        self._ends = dict.fromkeys(self._runs, 0)

    def end(self, product: int) -> int:
        """The use after the last that is stored; nothing is stored twice."""
        return self._ends[product]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(run.c.nbytes for runs in self._runs.values() for run in runs)

    def add(self, product: int, run: Cancellations) -> None:
        """Store the uses that follow."""
        self._runs[product].append(run)
        self._ends[product] = run.end

    def take(self, product: int, use: int, rows: int) -> Tensor:
        """``c [rows, m]`` of burnt uses; what comes before them is dropped."""
        self.forget(product, use)
        runs = self._runs[product]
        first = runs[0]
        if use + rows <= first.end:
            return first.c[use - first.first : use - first.first + rows]
        parts = [run.c[max(use - run.first, 0) : max(use + rows - run.first, 0)] for run in runs]
        return torch.cat([part for part in parts if len(part)])

    def forget(self, product: int, use: int) -> None:
        """Drop the runs that end before a use."""
        runs = self._runs[product]
        while runs and runs[0].end <= use:
            self._forget(product, runs.popleft())

    def drop(self) -> None:
        """Drop all runs."""
        for product, end in self._ends.items():
            self.forget(product, end)

    @abstractmethod
    def admit(self, nbytes: int) -> None:
        """See to it that so many bytes fit, before they are computed."""

    @abstractmethod
    def close(self) -> None:
        """Let go."""

    @abstractmethod
    def _forget(self, product: int, run: Cancellations) -> None:
        """A run is used up."""


class MemoryStorage(MaskStorage):
    """In memory."""

    def admit(self, nbytes: int) -> None:
        """What memory holds is the operating system's to say."""

    def close(self) -> None:
        """Nothing to let go of."""

    def _forget(self, product: int, run: Cancellations) -> None:
        """The garbage collector's."""


class FolderStorage(MaskStorage):
    """In a folder, one file a run, mapped into memory where it is read: for banks larger than memory.

    A run's checksum stays in memory, so that a file that changed meanwhile is noticed instead of giving wrong products.
    A second session on the same folder is refused while the first one lives. A cancellation tells of its mask, so that
    the folder is the owner's alone to read.

    Args:
        folder: made where it is missing; runs that lie in it already are removed.
        products: their numbers.
        device: where cancellations are wanted.

    Raises:
        ConfigError: for a folder that is in use, cannot be written, or has too little room.
    """

    def __init__(self, folder: Path, products: Iterable[int], device: torch.device) -> None:
        super().__init__(products)
        self._folder = folder
        self._device = device
        self._checksums: dict[Path, bytes] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _locked(folder)
            for left in folder.glob(_RUNS):
                left.unlink()
        except OSError as error:
            self._refuse(error)

    def admit(self, nbytes: int) -> None:
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            self._refuse(error)
        if nbytes > free:
            self._refuse(f"{nbytes / 1e6:.0f} MB of masks do not fit, {free / 1e6:.0f} MB are free")

    def add(self, product: int, run: Cancellations) -> None:
        path = self._file(product, run)
        values = run.c.cpu().numpy()
        try:
            np.save(path, values)
            super().add(product, Cancellations(run.first, _mapped(path)))
        except (OSError, ValueError) as error:
            self._refuse(error)
        self._checksums[path] = _checksum(values)

    def take(self, product: int, use: int, rows: int) -> Tensor:
        for run in self._runs[product]:
            if run.first >= use + rows:
                break
            if run.end > use:
                self._verify(self._file(product, run), run.c)
        return super().take(product, use, rows).to(self._device)

    def _verify(self, path: Path, c: Tensor) -> None:
        """Refuse a run that is no longer what was written."""
        with contextlib.suppress(FileNotFoundError):  # removed: the mapping keeps what it held
            if path.stat().st_size < c.nbytes:  # reading beyond its end would end the process
                self._refuse(f"{path.name} was cut; deploy again")
        if path in self._checksums:
            # Once is enough, when it is first read: hashing costs a small share of what computing the run did.
            if _checksum(c.numpy()) != self._checksums[path]:
                self._refuse(f"{path.name} was changed; deploy again")
            del self._checksums[path]

    def close(self) -> None:
        self.drop()
        os.close(self._lock)

    def _refuse(self, reason: OSError | ValueError | str) -> NoReturn:
        raise ConfigError(f"the mask bank in {self._folder} cannot be used: {reason}") from None

    def _forget(self, product: int, run: Cancellations) -> None:
        path = self._file(product, run)
        self._checksums.pop(path, None)
        with contextlib.suppress(OSError):  # it is useless already; the next opening tries again
            path.unlink(missing_ok=True)

    def _file(self, product: int, run: Cancellations) -> Path:
        return self._folder / f"run-{product}-{run.first}.npy"


_RUNS = "run-*-*.npy"


def _locked(folder: Path) -> int:
    """A handle of the folder that locks it until it is closed or its process ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise OSError("another session uses it") from None
    return handle


def _mapped(path: Path) -> Tensor:
    """Cancellations ``[rows, m]`` that stay on the disk until they are read."""
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def _checksum(values: NDArray[np.int64]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16).digest()
