"""Cost: memory of a process. Times come with each generation, traffic is counted by the boundary's ledger."""

import psutil

MEGABYTE = 1e6


def resident_mb(pid: int | None = None) -> float:
    """Resident memory of a process (this one by default) in megabytes."""
    return psutil.Process(pid).memory_info().rss / MEGABYTE
