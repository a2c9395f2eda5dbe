"""Successive halving over cells: who goes on, what is run, and when it stops."""

from collections.abc import Callable, Sequence

import pytest

from experiments.composing.halving import Halving, Outcome, merged
from smd_research.core.errors import ConfigError

OPTIONS = {"keep": 0.34, "minimise": "leak", "keeping": "accuracy", "slack": 0.02, "beside": "defense=none"}


def halving(**more: object) -> Halving:
    return Halving(**{**OPTIONS, "rungs": ["steps=1", "steps=3", "steps=9"], **more})  # type: ignore[arg-type]


def each(outcome: Callable[[tuple[str, ...]], Outcome]) -> Callable[[Sequence[tuple[str, ...]]], list[Outcome]]:
    return lambda cells: [outcome(cell) for cell in cells]


def values(cell: tuple[str, ...]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in cell)


def test_the_least_leak_among_the_useful_goes_on_and_longer_rungs_have_fewer_cells() -> None:
    ran: list[dict[str, str]] = []

    def outcome(cell: tuple[str, ...]) -> Outcome:
        ran.append(found := values(cell))
        if found["defense"] == "none":
            return {"accuracy": 0.9, "leak": 1.0}
        noise = int(found["noise"])
        return {"accuracy": 0.9 - 0.01 * noise, "leak": 1 - 0.1 * noise}

    candidates = [[f"noise={n}", "defense=shaking"] for n in range(9)]
    best = halving().run(candidates, ["seed=1"], each(outcome))
    steps = [one.get("steps") for one in ran]
    assert [steps.count(rung) for rung in (None, "1", "3", "9")] == [1, 9, 4, 2]
    assert halving().count(len(candidates)) == len(ran)
    assert [values(cell)["noise"] for cell in best] == ["2"]  # 3 and more lose over two points
    assert all(one["seed"] == "1" for one in ran)


def test_where_nobody_keeps_the_accuracy_those_that_lose_least_go_on() -> None:
    def outcome(cell: tuple[str, ...]) -> Outcome:
        loss = float(values(cell).get("loss", 0))
        return {"accuracy": 0.9 - loss, "leak": 0.5 - loss}

    best = halving(rungs=["steps=1"]).run([["loss=0.4"], ["loss=0.1"], ["loss=0.2"]], [], each(outcome))
    assert [values(cell)["loss"] for cell in best] == ["0.1", "0.2"]


def test_cells_without_a_record_drop_out() -> None:
    def outcome(cell: tuple[str, ...]) -> Outcome:
        found = values(cell)
        return None if found.get("a") == "1" else {"accuracy": 1.0, "leak": 0.0}

    assert halving(keep=1.0).run([["a=1"], ["a=2"]], [], each(outcome)) == [("a=2",)]
    assert halving().run([["a=1"]], [], each(lambda cell: None)) == []


def test_all_that_may_run_is_what_a_command_must_be_able_to_compose() -> None:
    cells = list(halving().all([["a=1", "steps=0"], ["a=2"]], ["seed=1"]))
    assert len(cells) == 1 + 3 * 2
    assert ("a=1", "steps=3", "seed=1") in cells


def test_later_parts_win() -> None:
    assert merged(["a=1", "b=[1,2]"], ["a=2"]) == ("a=2", "b=[1,2]")


@pytest.mark.parametrize("wrong", [{"rungs": []}, {"keep": 0.0}, {"keep": 1.5}, {"slack": -0.1}])
def test_bad_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="halving"):
        halving(**wrong)
