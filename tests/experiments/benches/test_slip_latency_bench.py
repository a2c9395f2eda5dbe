"""The bench of weight decomposition's latency: a step by party, and its whole time on a link."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import torch

from experiments.benches import slip_latency
from experiments.benches._slip import model
from experiments.benches._slip_batches import steps
from experiments.benches.case import Settings
from experiments.benches.slip_latency import Parties, PlainRunner, Work
from experiments.composing.declared import on_link
from smd_research.boundary import Link
from smd_research.defenses.slip import Slip
from smd_research.metrics.spread import Spread
from smd_research.models.decoding import plain_greedy
from smd_research.records.bench import BenchCase


@pytest.fixture(scope="module")
def parties() -> Iterator[Parties]:
    with ExitStack() as stack:
        yield slip_latency.deploy(stack, model(Settings(), "llama"), Slip(rank=2), 0)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_step_is_divided_by_party_and_its_traffic_counted(parties: Parties, phase: str) -> None:
    work = Work(phase, batch=2, prompt=4, decoded=3, seed=0)
    for _ in range(2):  # clocks and counts start anew with each measurement
        measured = slip_latency.protected(parties, work)
        extra = measured.extra
        parts = [extra[f"{name}_ms"] for name in ("device", "trusted", "wire")]
        assert min(parts) > 0
        assert sum(parts) == pytest.approx(measured.value)
        assert extra["offline_ms"] > 0
        products = parties.slip.parts.products
        assert extra["rounds_per_token"] == len(products) + 1
        assert extra["messages_per_token"] == 2 * (len(products) + 1)
    *blocks, head = products
    rows = {"prefill": 8, "decode": 2}[phase]
    residues = 8 * (rows * sum(p.height + p.width for p in blocks) + 2 * (head.height + head.width))
    assert residues < extra["frame_bytes_per_token"] < 1.2 * residues


@pytest.mark.parametrize(("phase", "party"), [("prefill", "trusted"), ("decode", "device")])
def test_a_baseline_has_one_party(parties: Parties, phase: str, party: str) -> None:
    measured = slip_latency.plain(parties, Work(phase, 2, 4, 3, 0), party, {"rounds": 1})
    assert measured.extra[f"{party}_ms"] == pytest.approx(measured.value)
    assert sum(measured.extra[f"{name}_ms"] for name in ("device", "trusted", "wire", "offline")) == pytest.approx(
        measured.value
    )
    assert measured.extra["rounds_per_token"] == {"prefill": 1, "decode": 0.5}[phase]


def test_the_baseline_is_the_plain_model(parties: Parties) -> None:
    bundle = parties.slip.bundle
    prompts = Work("decode", 3, 5, 4, 1).prompts(bundle)
    tokens = torch.stack([logits.argmax(-1) for logits in steps(PlainRunner(bundle), prompts, 4)], 1)
    assert [tuple(row) for row in tokens.tolist()] == [plain_greedy(bundle, ids, 4) for ids in prompts.tolist()]


def test_every_case_is_known_before_anything_is_decomposed() -> None:
    cases = list(slip_latency.cases(Settings()))
    assert len({case.name for case in cases}) == len(cases) == 12
    assert all(list(case.modes) == ["all_trusted", "slip", "all_exposed"] for case in cases)
    assert {case.labels["tokens"] for case in cases} == {1, 4, 16, 64, 256}


def test_a_case_has_its_whole_time_on_a_link() -> None:
    counts = {"messages_per_token": 2.0, "rounds_per_token": 3.0, "frame_bytes_per_token": 1000.0}
    extra = {name: Spread(value) for name, value in counts.items()}
    link = Link("far", round_trip_s=0.01, bytes_per_s=1e6)
    case = BenchCase("c", 5.0, 1.0, 5.0, "ms", 9, {"tokens": 4}, extra, Spread(5.0, 4.0, 7.0))
    found = on_link(case, link)
    assert found.case == "c far"
    assert (found.labels["link"], found.labels["round_trip_ms"]) == ("far", 10.0)
    assert found.extra["link_ms"].median == pytest.approx(31)
    total = found.extra["total_ms"]
    assert (total.median, total.low, total.high) == pytest.approx((36, 35, 38))
    assert found.extra["total_token_ms"].median == pytest.approx(9)
    alone = on_link(BenchCase("c", 5.0, 1.0, 5.0, "ms", 1, value_spread=Spread(5.0)), link)
    assert (alone.extra["link_ms"].median, alone.extra["total_ms"].median) == (0, 5)
    assert "total_token_ms" not in alone.extra
