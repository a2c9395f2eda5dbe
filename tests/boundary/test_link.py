"""The calibrated links give back the ratios they were calibrated on."""

import pytest
import yaml

from experiments.composing.catalogue import NOTES
from smd_research.boundary.ledger import Direction, Ledger
from smd_research.boundary.link import Link
from smd_research.core.paths import conf_dir

LAYERS, HEADS, HEAD_DIM, USERS = 32, 32, 128, 32  # Llama 3 8B at the shape of Figure 7
MESSAGES = 2 * LAYERS * USERS
BYTES = 4 * LAYERS * HEADS * (HEAD_DIM + 2) * USERS
REST_S = 0.03


def link(name: str) -> Link:
    options = yaml.safe_load((conf_dir() / "link" / f"{name}.yaml").read_text())
    assert options.pop("_target_") == "smd_research.boundary.link.Link"
    options = {key: value for key, value in options.items() if key not in NOTES}
    return Link(**{key: float(value) if key not in ("name", "source") else value for key, value in options.items()})


def step_s(name: str) -> float:
    return link(name).seconds_of(MESSAGES, LAYERS, BYTES)


def test_communication_is_five_times_as_slow_and_a_step_three_times() -> None:
    assert step_s("cc_on") / step_s("cc_off") == pytest.approx(5, rel=1e-3)
    assert (step_s("cc_on") + REST_S) / (step_s("cc_off") + REST_S) == pytest.approx(3, rel=0.01)


def test_communication_is_most_of_a_step_with_confidential_computing_and_half_without() -> None:
    assert step_s("cc_on") / (step_s("cc_on") + REST_S) == pytest.approx(5 / 6, rel=0.01)
    assert step_s("cc_off") / (step_s("cc_off") + REST_S) == pytest.approx(1 / 2, rel=0.01)


@pytest.mark.parametrize(
    "name", ["cc_on", "cc_off", "lan", "wan", "mobile", "rtt_0ms", "rtt_1ms", "rtt_10ms", "rtt_50ms"]
)
def test_every_link_says_that_it_is_modelled(name: str) -> None:
    text = (conf_dir() / "link" / f"{name}.yaml").read_text()
    assert text.startswith("# Modelled")
    assert link(name).source.startswith("modelled")


def test_a_ledger_costs_what_its_counts_cost() -> None:
    ledger = Ledger()
    for _ in range(3):
        ledger.count(Direction.TO_TRUSTED, "Query", 100, 130, reply=False)
        ledger.count(Direction.TO_UNTRUSTED, "PartialAttention", 100, 150, reply=True)
    one = Link("x", round_trip_s=1, bytes_per_s=280, message_s=10, byte_s=0.5)
    assert one.seconds(ledger) == pytest.approx(3 * 1 + 3 * 1 + 6 * 10 + 840 * 0.5)
    assert one.seconds(ledger) == one.seconds_of(6, 3, 840)
    assert Link("none").seconds(ledger) == 0
