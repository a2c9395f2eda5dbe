"""What a person sees at the end of a command."""

from dataclasses import replace
from pathlib import Path

import pytest
from made_records import make_cell, make_record

from experiments.commands.show import headline, sweep
from smd_research.metrics import Estimate
from smd_research.records import Record, Status, Store


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


def test_cells_that_an_experiment_lists_are_grouped_by_what_is_secret(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the prompt alone is secret; a sweep shows attack by attack. Both say where the records lie."""
    written = []
    for defense, attack, leak in (("none", "reading", 1.0), ("smd", "vocab_matching", 0.25)):
        cell = replace(make_cell(), defense={"name": defense}, attack={"name": attack})
        metrics = {"span_exact": Estimate(leak, n=4), "tpot_ms": Estimate(2.0, n=4)}
        written.append(Store(Path("results")).write(Record(Status.OK, cell, metrics=metrics)))
    sweep(written, Path("results"), listed=True)
    listed = capsys.readouterr().out
    assert "Every kind of defense, by what is secret" in listed
    assert (in_folder / "results" / "figures" / "overview.png").is_file()
    sweep(written, Path("results"))
    plain = capsys.readouterr().out
    assert "Attacks against defenses" in plain
    assert (in_folder / "results" / "figures" / "frontier.png").is_file()
    assert f"records: {in_folder / 'results' / 'cells'}" in listed
    assert f"records: {in_folder / 'results' / 'cells'}" in plain
