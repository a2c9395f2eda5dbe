"""The benches of weight decomposition: one request to either side, its time divided by party."""

from contextlib import ExitStack
from itertools import product

import pytest

from experiments.benches import slip_decode, slip_prefill
from experiments.benches._slip import BenchRequest, _deploy, models
from experiments.benches.case import Settings
from experiments.commands.bench import names
from smd_research.defenses.slip import Slip
from smd_research.models.smollm2_package import installed


@pytest.mark.parametrize(("new", "unit"), [(1, "ms"), (5, "ms/token")])
def test_the_time_of_a_request_is_divided_by_party(new: int, unit: str) -> None:
    request = BenchRequest(prompt=8, new=new)
    assert request.unit == unit
    with ExitStack() as stack:
        parties = _deploy(stack, Settings(), request, "llama", Slip(rank=2))
        assert parties.baseline() > 0
        for _ in range(2):  # the device's clock starts anew with each request
            measured = parties.value()
            device, trusted = measured.extra["device_ms"], measured.extra["trusted_ms"]
            assert 0 < device < measured.value
            assert device + trusted == pytest.approx(measured.value)
        assert measured.extra["offline_ms_per_token"] > 0
        assert 0 < measured.extra["trusted_flops_share"] < 1


def test_cases_are_known_before_anything_is_decomposed() -> None:
    assert {"slip_decode", "slip_prefill"} <= set(names())
    known = models(Settings())
    assert known[:2] == ("embedded", "100m")
    assert ("smollm2" in known) == installed()
    assert [case.labels["field"] for case in slip_decode.cases(Settings())] == ["wide" for _ in known]
    prefill = list(slip_prefill.cases(Settings()))
    assert {(case.labels["model"], case.labels["bits"]) for case in prefill} == set(product(known, (16, 8)))
