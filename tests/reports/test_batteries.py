from typing import Any

import pandas as pd
import pytest
from grid import records

from smd_research.core.cell import Cell
from smd_research.metrics import Estimate
from smd_research.records import Record, Status, frame_of
from smd_research.reports.batteries import Battery, batteries, headings


def cell(defense: dict[str, Any], attack: str, **changes: Any) -> Cell:
    return Cell(model={"name": "m"}, data={"name": "d"}, defense=defense, attack={"name": attack}, **changes)


def ok(defense: dict[str, Any], attack: str, changes: dict[str, Any] | None = None, **metrics: float) -> Record:
    return Record(Status.OK, cell(defense, attack, **(changes or {})), "", {k: Estimate(v) for k, v in metrics.items()})


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return frame_of(records())


def named(frame: pd.DataFrame, label: str) -> Battery:
    return next(battery for battery in batteries(frame) if battery.label == label)


def test_defenses_are_told_apart_by_the_options_that_differ(frame: pd.DataFrame) -> None:
    assert [battery.label for battery in batteries(frame)] == [
        "none",
        "dp_text epsilon[metric]=4",
        "dp_text epsilon[metric]=8",
        "dp_text epsilon[metric]=12",
        "dp_text epsilon[metric]=16",
        "smd",
        "split layer=1",
        "split layer=4",
    ]


def test_privacy_is_that_of_the_best_attack() -> None:
    frame = frame_of(
        [ok({"name": "x"}, a, token_accuracy=v) for a, v in (("prior", 0.3), ("weak", 0.2), ("strong", 0.9))]
    )
    best = batteries(frame)[0].best("token_accuracy")
    assert best is not None
    assert (best.attack, best.value) == ("strong", 0.9)


def test_a_baseline_may_be_the_best_but_loses_a_tie() -> None:
    frame = frame_of([ok({"name": "x"}, "prior", token_accuracy=0.3), ok({"name": "x"}, "weak", token_accuracy=0.2)])
    best = batteries(frame)[0].best("token_accuracy")
    assert best is not None
    assert best.attack == "prior"
    tied = frame_of([ok({"name": "x"}, "prior", token_accuracy=0.3), ok({"name": "x"}, "zeta", token_accuracy=0.3)])
    best = batteries(tied)[0].best("token_accuracy")
    assert best is not None
    assert best.attack == "zeta"


def test_chance_is_the_largest_of_baselines_and_the_best_attacks_control() -> None:
    rows = [
        ok({"name": "x"}, "prior", token_accuracy=0.2),
        ok({"name": "x"}, "random", token_accuracy=0.0),
        ok({"name": "x"}, "strong", token_accuracy=0.9, control_token_accuracy=0.25),
        ok({"name": "x"}, "weak", token_accuracy=0.4, control_token_accuracy=0.4),
    ]
    chance = batteries(frame_of(rows))[0].chance("token_accuracy")
    assert chance is not None
    assert (chance.attack, chance.value) == ("strong", 0.25)


def test_utility_is_that_of_the_median_cell() -> None:
    rows = [ok({"name": "x"}, a, tpot_ms=v) for a, v in (("a", 5.0), ("b", 90.0), ("c", 6.0))]
    common = batteries(frame_of(rows))[0].common("tpot_ms")
    assert common is not None
    assert common.value == 6.0


def test_a_defense_that_met_only_baselines_is_untested(frame: pd.DataFrame) -> None:
    assert not named(frame, "none").tested
    assert named(frame, "smd").tested


def test_settings_that_vary_part_the_rows() -> None:
    rows = [
        ok({"name": "x"}, "a", {"seed": seed, "prompt_tokens": cut}, kl=1.0) for seed in (0, 1) for cut in (None, 16)
    ]
    assert sorted(battery.label for battery in batteries(frame_of(rows))) == [
        "prompt_tokens=16 seed=0 x",
        "prompt_tokens=16 seed=1 x",
        "prompt_tokens=whole seed=0 x",
        "prompt_tokens=whole seed=1 x",
    ]


def test_models_of_one_name_are_told_apart() -> None:
    models = [{"name": "random", "family": family} for family in ("llama", "gpt2")]
    rows = [
        Record(Status.OK, Cell(model=m, data={"name": "d"}, defense={"name": "x"}), "", {"kl": Estimate(0.0)})
        for m in models
    ]
    assert [b.label for b in batteries(frame_of(rows))] == ["random family=gpt2 x", "random family=llama x"]


def test_outcomes_name_failures_and_skip_unattacked_cells() -> None:
    rows = [
        ok({"name": "x"}, "none", kl=0.0),
        Record(Status.FAILED, cell({"name": "x"}, "a"), "broke"),
        Record(Status.NOT_APPLICABLE, cell({"name": "x"}, "b"), "needs more"),
    ]
    outcomes = batteries(frame_of(rows))[0].outcomes
    assert [(o.attack, o.status, o.reason) for o in outcomes] == [
        ("a", Status.FAILED, "broke"),
        ("b", Status.NOT_APPLICABLE, "needs more"),
    ]


def test_an_empty_frame_has_no_batteries() -> None:
    assert batteries(frame_of([])) == []


def test_only_the_latest_version_counts() -> None:
    rows = [
        ok({"name": "x"}, "a", {"versions": {"defense": 1, "attack": 1}}, token_accuracy=0.9),
        ok({"name": "x"}, "a", {"versions": {"defense": 2, "attack": 1}}, token_accuracy=0.5),
        ok({"name": "x"}, "a", {"versions": {"defense": 2, "attack": 2}}, token_accuracy=0.6),
        ok({"name": "x"}, "b", {"versions": {"defense": 2, "attack": 1}}, token_accuracy=0.1),
        ok({"name": "x"}, "b", {"versions": {"defense": 1, "attack": 9}}, token_accuracy=1.0),
    ]
    (battery,) = batteries(frame_of(rows))
    assert [o.attack for o in battery.outcomes] == ["a", "b"]
    best = battery.best("token_accuracy")
    assert best is not None
    assert (best.attack, best.value) == ("a", 0.6)


def test_an_option_left_open_is_shown_as_deployed() -> None:
    def swept(survival: float, attack: str, epsilon: float | None) -> Record:
        options = {"name": "dp", "survival": survival, "epsilon": None}
        if epsilon is None:
            return Record(Status.NOT_APPLICABLE, cell(options, attack), "needs more")
        deployed = {"parameters": {"epsilon": epsilon, "share": 0.5}}
        return Record(Status.OK, cell(options, attack), "", {"kl": Estimate(1.0)}, environment=deployed)

    rows = [swept(0.5, "a", 7.12345), swept(0.5, "b", None), swept(0.9, "a", 12.0)]
    found = batteries(frame_of(rows))
    assert [battery.label for battery in found] == ["dp epsilon=7.12 survival=0.5", "dp epsilon=12 survival=0.9"]
    assert [len(battery.outcomes) for battery in found] == [2, 1]
    assert found[0].parameters["epsilon"] == 7.12


def test_epsilons_of_two_mechanisms_do_not_mix() -> None:
    rows = [
        ok({"name": "dp", "epsilon": epsilon, "mechanism": mechanism}, "a", kl=1.0)
        for epsilon, mechanism in ((12, "far"), (3, "near"), (40, "near"), (2, "far"))
    ]
    found = [(battery.parameters["mechanism"], battery.epsilon) for battery in batteries(frame_of(rows))]
    assert found == [("far", 2), ("far", 12), ("near", 3), ("near", 40)]


def measured(attack: str, **metrics: Estimate) -> Record:
    return Record(Status.OK, cell({"name": "x"}, attack), "", metrics)


def test_a_leak_is_paired_with_the_attacks_own_control() -> None:
    strong = measured(
        "strong",
        token_accuracy=Estimate(0.9, 0.7, 1.0, 20),
        control_token_accuracy=Estimate(0.2, 0.1, 0.3, 20),
        excess_token_accuracy=Estimate(0.7, 0.6, 0.8, 20),
    )
    (battery,) = batteries(frame_of([strong, measured("prior", token_accuracy=Estimate(0.1, 0.0, 0.2, 20))]))
    leak = battery.leak("token_accuracy")
    assert leak is not None
    assert (leak.value, leak.low, leak.high) == (0.7, 0.6, 0.8)


def test_beside_a_baseline_a_leak_has_the_interval_of_two_cells() -> None:
    strong = measured("strong", token_accuracy=Estimate(0.9, 0.6, 1.0, 20), excess_token_accuracy=Estimate(0.9))
    (battery,) = batteries(frame_of([strong, measured("prior", token_accuracy=Estimate(0.5, 0.4, 0.9, 20))]))
    leak = battery.leak("token_accuracy")
    assert leak is not None
    assert leak.value == pytest.approx(0.4)
    assert (leak.low, leak.high) == pytest.approx((0.4 - (0.3**2 + 0.4**2) ** 0.5, 0.4 + (0.1**2 + 0.1**2) ** 0.5))


def test_without_a_level_of_chance_there_is_no_leak() -> None:
    (battery,) = batteries(frame_of([measured("strong", token_accuracy=Estimate(0.9))]))
    assert battery.leak("token_accuracy") is None
    assert battery.leak("span_exact") is None


def test_a_heading_has_the_settings_that_tell_it_from_the_same_defense_and_no_more() -> None:
    runs = [("x", 1, 8), ("x", 2, 16), ("x", 2, 8), ("y", 3, 32)]
    rows = [ok({"name": name}, "a", {"n_prompts": n, "prompt_tokens": t}, kl=0.1) for name, n, t in runs]
    found = batteries(frame_of(rows))
    assert sorted(headings(found)) == ["n_prompts=1 x", "n_prompts=2 prompt_tokens=8 x", "prompt_tokens=16 x", "y"]
    assert headings(found[:1]) == [found[0].defense]
