"""Two runs of a cell: what has to be the same, and what lies within a tolerance."""

from dataclasses import replace
from typing import Any

import pytest
from made_records import make_cell

from experiments.trials.repeating import compared, differing, same_lock, stated_seconds
from smd_research.data.prompts import TokenSpan
from smd_research.metrics import Estimate
from smd_research.records import Item, Record, Status, items_frame

HERE: dict[str, Any] = {
    "packages": {"torch": "2.13.0"},
    "python": "3.11.7",
    "platform": "Linux x86_64",
    "cpu": {"name": "A", "cores": 2},
    "torch_threads": 1,
    "device": "cpu",
    "accelerator": "",
}
ITEM = Item(
    "p0",
    {"token_accuracy": 0.5, "kl": 0.1, "ttft_ms": 3.0, "row_space_s": 0.1},
    ["a", "b"],
    ["a", None],
    [TokenSpan(0, 1, "name")],
    [5, 6],
    [5, -1],
    "notes",
)


def record(item: Item = ITEM, **means: float) -> Record:
    metrics = {name: Estimate(value, n=1) for name, value in {"token_accuracy": 0.5, "kl": 0.1, **means}.items()}
    return Record(Status.OK, make_cell(), metrics=metrics, items=items_frame([item]))


def told(published: Record, tolerance: float | None) -> list[str]:
    return list(differing(published, record(), tolerance))


def test_the_same_holds_and_times_are_not_compared() -> None:
    slower = replace(ITEM, metrics={**ITEM.metrics, "ttft_ms": 9.0, "row_space_s": 9.0})
    assert told(record(slower, tpot_ms=9.0), None) == []
    assert [name for name in ("ttft_ms", "attack_s", "kv_mb", "tokens_per_s", "some_s") if compared(name)] == []
    assert all(map(compared, ("kl", "messages", "bytes_to_trusted", "attack_candidates", "nll")))


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (replace(ITEM, guess_ids=[5, 6], guess_tokens=["a", "b"]), "prompt p0: its guess is another one"),
        (replace(ITEM, metrics={**ITEM.metrics, "kl": 0.101}), "prompt p0, kl: 0.101, run again 0.1"),
        (replace(ITEM, truth_ids=[5, 7]), "its prompts are others than those that its cell asks"),
        (replace(ITEM, prompt_id="p1"), "its prompts are others than those that its cell asks"),
    ],
)
def test_on_one_lock_items_are_the_same(item: Item, said: str) -> None:
    assert told(record(item), None) == [said]


def test_elsewhere_guesses_may_differ_and_means_lie_within_the_tolerance() -> None:
    other = replace(ITEM, guess_ids=[5, 6], guess_tokens=["a", "b"])
    assert told(record(other, token_accuracy=0.54, kl=0.104), 0.05) == []
    assert told(record(other, token_accuracy=0.56), 0.05) == ["token_accuracy: 0.56, run again 0.5"]
    assert told(record(other, kl=0.2), 0.05) == ["kl: 0.2, run again 0.1"]
    assert told(record(kl=0.106), 0.05) == ["kl: 0.106, run again 0.1"]
    assert told(record(kl=0.10005), 0) == ["kl: 0.10005, run again 0.1"]
    assert told(record(replace(ITEM, truth_ids=[5, 7])), 0.05)


def test_another_end_or_another_metric_is_named() -> None:
    failed = Record(Status.FAILED, make_cell(), "no room")
    assert told(failed, None) == ["its status is failed, run again it is ok"]
    assert told(record(perplexity=2.0), 0.05) == ["perplexity: measured there alone"]


@pytest.mark.parametrize(
    "changed",
    [
        {"packages": {"torch": "2.12.0"}},
        {"python": "3.12.0"},
        {"platform": "Darwin arm64"},
        {"cpu": {"name": "B"}},
        {"torch_threads": 4},
        {"device": "cuda"},
    ],
    ids=str,
)
def test_a_lock_is_versions_platform_processor_threads_and_device(changed: dict[str, Any]) -> None:
    assert same_lock(HERE, {**HERE, "memory_gib": 8.0, "cpu": {"name": "A", "cores": 64}})
    assert not same_lock(HERE, {**HERE, **changed})
    assert not same_lock({}, HERE)
    assert not same_lock({"cpu": "none"}, {})


def test_what_an_environment_states_may_be_anything() -> None:
    assert stated_seconds({"wall_s": {"attack": 1.5, "score": 1, "note": "x"}}) == 2.5
    assert stated_seconds({"wall_s": ["x"]}) == stated_seconds({}) == 0
