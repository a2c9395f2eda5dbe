import os

from smd_research.metrics import resident_mb


def test_resident_memory_of_this_process() -> None:
    assert 10 < resident_mb() < 10**6
    assert 10 < resident_mb(os.getpid()) < 10**6
