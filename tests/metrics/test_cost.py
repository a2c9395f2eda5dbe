import math

import pytest
import torch

from smd_research.metrics import allocated_mb, resident_mb, tokens_per_s, tpot_ms, ttft_ms


def test_times_from_clock_readings() -> None:
    stamps = [10.0, 10.5, 10.6, 10.8]
    assert ttft_ms(stamps) == pytest.approx(500)
    assert tpot_ms(stamps) == pytest.approx(150)
    assert tokens_per_s(stamps) == pytest.approx(3 / 0.8)


def test_too_few_readings_say_nothing() -> None:
    assert math.isnan(ttft_ms([1.0]))
    assert math.isnan(tpot_ms([1.0, 2.0]))
    assert math.isnan(tokens_per_s([]))


def test_shared_storage_counts_once() -> None:
    weight = torch.zeros(1000, 250)
    assert allocated_mb([weight, weight.T, weight[:10]]) == pytest.approx(1.0)
    assert allocated_mb([weight, torch.zeros(250_000)]) == pytest.approx(2.0)
    assert allocated_mb([]) == 0


def test_resident_memory_of_this_process() -> None:
    assert 10 < resident_mb() < 10**6
