"""The words of a declared table: what they stand for, and what is said of one that does not exist."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from experiments.composing.words import FIGURES, RULES, VIEWS, resolve_figure, resolve_rule, resolve_view
from smd_research.core.errors import ConfigError
from smd_research.records.bench import BenchCase
from smd_research.records.frame import tidy
from smd_research.reports.points import Point
from smd_research.reports.verdicts import Judgement


def column(**options: Any) -> Any:
    """A table of one column."""
    return {"layout": {"rows": {}, "columns": [options]}}


POINTS = [Point({"users": users}, "ms", float(users)) for users in (1, 2)]


def test_a_word_stands_alone_or_with_its_options() -> None:
    assert resolve_view("summary")(tidy([]), title="t").title == "t"
    assert resolve_view({"summary": None})(tidy([]), title="t").title == "t"
    view = resolve_view({"layout": {"rows": {"users": None}, "columns": [{"title": "ms", "quantity": "value"}]}})
    cases = [BenchCase("c", float(users), 1.0, 1.0, "ms", 5, {"users": users}) for users in (1, 2)]
    assert [row[0].text for row in view(cases, title="t").rows] == ["1", "2"]
    rule = resolve_rule({"within": {"of": {"quantity": "ms"}, "low": 1, "high": 2}})
    assert rule(POINTS).verdict is Judgement.HOLDS


def test_pooled_holds_another_view_or_figure(tmp_path: Path) -> None:
    assert resolve_view({"pooled": "summary"})(tidy([]), title="t").title == "t"
    inner = {"lines": {"over": "seed", "curves": [], "x": {"title": "x"}, "y": {"title": "y"}}}
    assert callable(resolve_figure({"pooled": inner}))
    with pytest.raises(ConfigError, match="unknown figure 'line': did you mean 'lines'"):
        resolve_figure({"pooled": {"line": {}}})


@pytest.mark.parametrize(
    ("resolve", "said", "message"),
    [
        (resolve_view, "sumary", "unknown view 'sumary': did you mean 'summary'?"),
        (resolve_figure, {"paretto": {}}, "unknown figure 'paretto': did you mean 'pareto'?"),
        (resolve_rule, {"withn": {}}, "unknown rule 'withn': did you mean 'within'?"),
        (resolve_rule, {"within": {"of": {}, "hihg": 1}}, "rule within: unknown option 'hihg': did you mean 'high'?"),
        (resolve_rule, {"within": {}}, "rule within: missing a required argument: 'of'"),
        (resolve_view, {"layout": {"rows": {}}}, "view layout: missing a required argument: 'columns'"),
        (resolve_view, {"layout": {}, "summary": {}}, "give one word with its options"),
        (resolve_view, {"summary": {"title": "x"}}, "view summary: unknown option 'title'"),
        (resolve_view, column(title="a", quantity="b", show="shar"), "unknown show 'shar': did you mean 'share'?"),
        (resolve_view, column(title="a", quantity="b", best="most"), "unknown best 'most'"),
        (resolve_view, column(title="a", quantitty="b"), "unknown option 'quantitty': did you mean 'quantity'?"),
        (resolve_view, column(title="a"), "view layout: columns: quantity is missing beside {'title': 'a'}"),
        (resolve_view, {"layout": {"rows": {}, "columns": "ms"}}, "columns is a list, not ms"),
        (resolve_view, {"layout": {"rows": {}, "columns": ["ms"]}}, "columns: give title, quantity, where"),
        (resolve_rule, {"within": {"of": "ms"}}, "rule within: of: give quantity, where, not ms"),
        (resolve_rule, {"within": {"of": {"quantity": "ms"}, "show": "tiny"}}, "unknown show 'tiny'"),
        (resolve_rule, {"within": {"of": {"quantity": "ms", "were": {}}}}, "did you mean 'where'?"),
        (resolve_figure, {"lines": {"over": "k", "curves": [{"title": "a"}], "x": {}, "y": {}}}, "quantity is missing"),
        (resolve_figure, {"lines": {"over": "k", "curves": [], "x": {}, "y": {}}}, "figure lines: x: title is missing"),
    ],
)
def test_a_misspelt_word_is_one_line_with_the_near_miss(resolve: Callable[[Any], Any], said: Any, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        resolve(said)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("words", "first"), [(VIEWS, {"title"}), (FIGURES, {"path"}), (RULES, {"points"})], ids=["view", "figure", "rule"]
)
def test_every_word_takes_what_it_is_given(words: Mapping[str, Callable[..., Any]], first: set[str]) -> None:
    for function in words.values():
        assert first <= set(inspect.signature(function).parameters)
