from made_records import make_cell, make_record

from experiments.commands.show import headline
from smd_research.metrics import Estimate
from smd_research.records import Record, Status


def test_the_headline_is_leak_with_chance_utility_and_cost() -> None:
    metrics = {
        "tpot_ms": Estimate(12.0, 11.0, 13.0, 4),
        "kl": Estimate(0.0, 0.0, 0.0, 4),
        "token_accuracy": Estimate(0.75, 0.5, 0.9, 4),
        "span_exact": Estimate(0.5, 0.1, 0.9, 4),
        "control_span_exact": Estimate(0.05, 0.0, 0.4, 4),
    }
    assert headline(Record(Status.OK, make_cell(), metrics=metrics)) == [
        "leak     secrets recovered 0.500 [0.100, 0.900], chance 0.050",
        "utility  KL 0.000 nats [0.000, 0.000]",
        "cost     per token 12 ms [11, 13]",
    ]


def test_one_of_several_streams_is_picked_by_chance() -> None:
    metrics = {"span_exact": 0.0, "control_span_exact": 0.0, "stream_found": 0.0, "stream_chance": 0.25}
    record = Record(Status.OK, make_cell(), metrics={name: Estimate(value) for name, value in metrics.items()})
    assert headline(record) == ["leak     secrets recovered 0.000, chance 0.250"]


def test_a_cell_without_an_attack_has_no_leak() -> None:
    assert [line.split()[0] for line in headline(make_record())] == ["leak", "utility"]
    quiet = Record(Status.OK, make_cell(), metrics={"kl": Estimate(0.1)})
    assert headline(quiet) == ["utility  KL 0.100 nats"]
