"""A defense is a configuration: what it comes to for a model is prepared once, and deploys as often as one likes."""

import dataclasses
from pathlib import Path

import pytest

from smd_research.boundary import Boundary
from smd_research.data.prompts import Prompt
from smd_research.defenses.base import Defense, PublicText
from smd_research.defenses.dp_hidden import DpHidden
from smd_research.defenses.dp_text import DpText
from smd_research.defenses.none import NoDefense
from smd_research.defenses.slip import Slip
from smd_research.defenses.smd import Smd
from smd_research.defenses.split import Split
from smd_research.models import Bundle, sources

PROMPT = Prompt("p", "", (5, 6, 7, 8))
TEXT = PublicText([tuple(range(3, 60))])
DEFENSES = (
    NoDefense(),
    Split(1, "both"),
    DpText(epsilon=5.0),
    DpHidden(epsilon=5.0),
    Smd(noise_log_weight=0.1),
    Slip(rank=2, verify=0),
)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return sources.random("llama")


@pytest.mark.parametrize("defense", DEFENSES, ids=lambda one: type(one).__name__)
def test_two_deployments_of_what_was_prepared_are_one_another(bundle: Bundle, defense: Defense) -> None:
    prepared = defense.prepare(bundle, TEXT, seed=3)
    answers = []
    for _ in range(2):
        with prepared.deploy(Boundary()) as deployment:
            answers.append([deployment.generate(PROMPT, 4).ids for _ in range(2)])
    assert answers[0] == answers[1], "each deployment draws the same randomness from the seed"


@pytest.mark.parametrize("defense", DEFENSES, ids=lambda one: type(one).__name__)
def test_a_defense_keeps_nothing_of_what_it_prepared(bundle: Bundle, defense: Defense) -> None:
    before = {name: id(value) for name, value in vars(defense).items()}
    prepared = defense.prepare(bundle, TEXT)
    assert {name: id(value) for name, value in vars(defense).items()} == before
    assert prepared.bundle is bundle
    assert prepared.shows == defense.shows
    with pytest.raises(dataclasses.FrozenInstanceError):
        prepared.seed = 1  # type: ignore[misc]


def test_only_where_weights_are_the_secret_no_ancestor_is_known(bundle: Bundle) -> None:
    """Whether the public model that the served one was made from is known is a fact of the defense."""
    assert Slip(rank=2).prepare(bundle, TEXT).base is None
    assert all(one.prepare(bundle, TEXT).base is bundle for one in DEFENSES if not isinstance(one, Slip))


def test_what_is_published_are_the_fields_of_all_parameters(bundle: Bundle) -> None:
    prepared = Split(1, "sequence", "fp16").prepare(bundle)
    assert prepared.published() == {"layer": 1, "wire_dtype": "fp16", "permute": "sequence"}
    assert NoDefense().prepare(bundle, folder=Path("unused")).published() == {}
