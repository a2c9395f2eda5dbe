"""Where cancellation masks are kept, and which uses are burnt: in memory, or in a folder that survives a crash."""

import contextlib
import fcntl
import json
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
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
    """Cancellations of every product as runs of consecutive uses, and the uses that are burnt.

    Args:
        products: their numbers.
    """

    def __init__(self, products: Iterable[int]) -> None:
        self._runs: dict[int, deque[Cancellations]] = {product: deque() for product in products}
        self._ends = dict.fromkeys(self._runs, 0)

    def burnt(self) -> dict[int, int]:
        """The first use of each product that no one has had."""
        return dict.fromkeys(self._runs, 0)

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
        runs = self._runs[product]
        while runs[0].end <= use:
            self._forget(product, runs.popleft())
        first = runs[0]
        if use + rows <= first.end:
            return first.c[use - first.first : use - first.first + rows]
        parts = [run.c[max(use - run.first, 0) : max(use + rows - run.first, 0)] for run in runs]
        return torch.cat([part for part in parts if len(part)])

    def drop(self, before: Mapping[int, int]) -> None:
        """Drop what lies wholly before a use of each product."""
        for product, use in before.items():
            runs = self._runs[product]
            while runs and runs[0].end <= use:
                self._forget(product, runs.popleft())

    @abstractmethod
    def burn(self, burnt: Mapping[int, int]) -> None:
        """Make it last that all uses of each product before the given one are gone."""

    @abstractmethod
    def close(self) -> None:
        """Let go."""

    @abstractmethod
    def _forget(self, product: int, run: Cancellations) -> None:
        """A run is used up."""


class MemoryStorage(MaskStorage):
    """In memory: a session's end is the end of its masks."""

    def burn(self, burnt: Mapping[int, int]) -> None:
        """Nothing outlives the session, so nothing has to last."""

    def close(self) -> None:
        """Nothing to let go of."""

    def _forget(self, product: int, run: Cancellations) -> None:
        """The garbage collector's."""


class FolderStorage(MaskStorage):
    """In a folder: ``state.json`` says which uses are burnt, one file a run holds the cancellations.

    Both are written aside, flushed to the disk and renamed, so that a crash leaves the old file or the new one. A
    second session on the same folder is refused while the first one lives.

    Args:
        folder: made where it is missing.
        products: their numbers.
        owner: digest of key, field and weights: a bank of another deployment is refused.
        device: where cancellations are wanted.

    Raises:
        ConfigError: for a folder of another owner, one in use, or one that cannot be written or read.
    """

    def __init__(self, folder: Path, products: Iterable[int], owner: str, device: torch.device) -> None:
        super().__init__(products)
        self._folder = folder
        self._owner = owner
        self._device = device
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder)
            self._burnt = self._state()
            self._load()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"the mask bank in {folder} cannot be used: {type(error).__name__}: {error}") from None

    def burnt(self) -> dict[int, int]:
        return dict(self._burnt)

    def burn(self, burnt: Mapping[int, int]) -> None:
        state = {"owner": self._owner, "burnt": {str(product): use for product, use in burnt.items()}}
        with _replacing(self._folder / "state.json") as file:
            file.write(json.dumps(state).encode())

    def add(self, product: int, run: Cancellations) -> None:
        path = self._file(product, run)
        with _replacing(path) as file:
            np.save(file, run.c.cpu().numpy())
        super().add(product, Cancellations(run.first, _mapped(path)))

    def take(self, product: int, use: int, rows: int) -> Tensor:
        return super().take(product, use, rows).to(self._device)

    def close(self) -> None:
        self._lock.close()

    def _state(self) -> dict[int, int]:
        """What earlier sessions burnt; a folder without a state is a new one."""
        path = self._folder / "state.json"
        if not path.is_file():
            if any(self._folder.glob("*.npy")):
                raise ValueError("its state is missing, so that no mask in it can be known to be fresh")
            burnt = super().burnt()
            self.burn(burnt)
            return burnt
        state = json.loads(path.read_text(encoding="utf-8"))
        if state["owner"] != self._owner:
            raise ValueError("it belongs to another key, model or split; give an empty folder")
        return {product: int(state["burnt"][str(product)]) for product in self._runs}

    def _load(self) -> None:
        """Take over the runs of earlier sessions that have unburnt uses."""
        for path in self._folder.glob("*.tmp"):
            path.unlink()
        for path in sorted(self._folder.glob("*.npy"), key=_place):
            product, first = _place(path)
            run = Cancellations(first, _mapped(path))
            if run.end <= self._burnt[product]:
                path.unlink()
                continue
            if self._runs[product] and run.first != self._ends[product]:
                raise ValueError(f"masks of product {product} before use {run.first} are missing")
            super().add(product, run)
        self._ends = {product: max(end, self._burnt[product]) for product, end in self._ends.items()}

    def _forget(self, product: int, run: Cancellations) -> None:
        self._file(product, run).unlink(missing_ok=True)

    def _file(self, product: int, run: Cancellations) -> Path:
        return self._folder / f"{product}-{run.first}.npy"


def _locked(folder: Path) -> IO[bytes]:
    """The folder's lock, held until the file is closed or its process ends."""
    lock = (folder / "lock").open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise ValueError("another session uses it") from None
    return lock


def _place(path: Path) -> tuple[int, int]:
    """Product and first use of a run's file."""
    product, first = path.stem.split("-")
    return int(product), int(first)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` at once, and only when all of it is on the disk."""
    aside = path.with_name(f"{path.name}.tmp")
    with aside.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _mapped(path: Path) -> Tensor:
    """Cancellations ``[rows, m]`` that stay on the disk until they are read."""
    return torch.from_numpy(np.load(path, mmap_mode="r+", allow_pickle=False))
