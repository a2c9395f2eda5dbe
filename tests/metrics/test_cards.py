"""Every metric has a card beside its function, and every card is known."""

import inspect
import pkgutil
from importlib import import_module
from types import ModuleType

import pytest

from smd_research import metrics
from smd_research.metrics import CARDS, Card, cards, privacy, utility
from smd_research.metrics.card import CONTROL

MODULES = [import_module(f"smd_research.metrics.{found.name}") for found in pkgutil.iter_modules(metrics.__path__)]
PARTS = {"top_k_accuracy", "choice_found", "negative_log_likelihood"}
"""Functions that metrics of other names are made with."""


def test_every_card_of_the_package_is_known() -> None:
    written = [card for module in MODULES for card in cards.find_cards(module)]
    assert len(written) == len(CARDS) > 140
    assert {card.name for card in written} == set(CARDS)
    assert all(name == card.name for name, card in CARDS.items())


@pytest.mark.parametrize("module", [privacy, utility], ids=["privacy", "utility"])
def test_every_function_of_one_prompt_has_a_card_beside_it(module: ModuleType) -> None:
    named = {card.name for card in cards.find_cards(module)}
    functions = [f for name, f in inspect.getmembers(module, inspect.isfunction) if not name.startswith("_")]
    own = [f for f in functions if f.__module__ == module.__name__ and inspect.signature(f).return_annotation is float]
    assert len(own) > 3
    assert {f.__name__ for f in own} - PARTS <= named


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_a_card_is_written_for_a_column_and_explained_below(card: Card) -> None:
    assert 0 < len(card.label) <= 32
    assert len(card.label) < len(card.description)
    assert card.chance not in (card.label, card.description)


@pytest.mark.parametrize("card", [card for card in CARDS.values() if card.scale in ("rate", "excess")])
def test_the_ceiling_of_a_share_is_one_end_of_its_range(card: Card) -> None:
    """Of a leak, and of what the user wants much of, it is 1; of what nobody wants, such as refusals, 0."""
    assert card.ceiling == (1 if card.kind == "privacy" or card.better == "higher" else 0)


def test_tables_show_metrics_in_one_order() -> None:
    order = list(CARDS)
    assert order[:2] == ["token_accuracy", "top5_accuracy"]
    assert order.index("modelled_s") > order.index("kl") > order.index("top5_accuracy"), "privacy, utility, cost"
    firsts = ["token_accuracy", "stream_found", "original_loss", "accuracy", "attack_s", "perplexity", "ttft_ms"]
    assert sorted(firsts, key=order.index) == firsts


def test_a_new_card_is_found_alone_or_in_a_tuple() -> None:
    module = ModuleType("module")
    one, two, three = (Card.leak(name, name, "what it is") for name in ("one", "two", "three"))
    vars(module).update(FIRST=one, NAMES=("a", "b"), OTHERS=(two, three))
    assert [card.name for card in cards.find_cards(module)] == ["one", "two", "three"]
    assert one.chance == CONTROL


def test_two_metrics_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utility, "AGAIN", Card.cost("rounds", "rounds", "", "what there is"), raising=False)
    with pytest.raises(ValueError, match="two metrics are named rounds"):
        cards.gather()
