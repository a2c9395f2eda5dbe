"""Cost: time a user waits, and memory each party holds. Traffic is counted by the boundary's ledger."""

import math
from collections.abc import Iterable, Sequence

import psutil
from torch import Tensor

MEGABYTE = 1e6


def ttft_ms(stamps: Sequence[float]) -> float:
    """Time to first token in milliseconds, from clock readings in seconds: the start, then one for each token."""
    return (stamps[1] - stamps[0]) * 1e3 if len(stamps) > 1 else math.nan


def tpot_ms(stamps: Sequence[float]) -> float:
    """Time per output token in milliseconds: the mean gap between tokens after the first."""
    return (stamps[-1] - stamps[1]) / (len(stamps) - 2) * 1e3 if len(stamps) > 2 else math.nan


def tokens_per_s(stamps: Sequence[float]) -> float:
    """Tokens generated per second, the first one included."""
    return (len(stamps) - 1) / (stamps[-1] - stamps[0]) if len(stamps) > 1 else math.nan


def allocated_mb(tensors: Iterable[Tensor]) -> float:
    """Megabytes of storage behind tensors, shared storage counted once: the rule of ``weights_mb`` and ``kv_mb``."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.numel()}
    return sum(storages.values()) / MEGABYTE


def resident_mb(pid: int | None = None) -> float:
    """Resident memory of a process (this one by default) in megabytes."""
    return psutil.Process(pid).memory_info().rss / MEGABYTE
