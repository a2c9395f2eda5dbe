"""A prompt that a defense refuses is counted and left out; anything else that stops it fails the cell."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests_support import numbers

from experiments.commands.cli import main as smd
from experiments.trials.impersonating import impersonated
from experiments.trials.plain import plain_answers
from experiments.trials.pursuit import Findings
from experiments.trials.scoring import score
from experiments.trials.seen import Seen
from experiments.trials.serving import Opening, serve
from smd_research.boundary import Boundary, Link
from smd_research.core.errors import LabError, PromptError, ProtocolError, RefusedError
from smd_research.data.prompts import Prompt
from smd_research.defenses.base import NO_TEXT, Generation, PublicText
from smd_research.defenses.none import NoDefense, PlainDeployment, PlainPrepared
from smd_research.models import Bundle, sources
from smd_research.records import Status, read

PROMPTS = tuple(Prompt(f"p{i}", "", (10 + i, 11, 12, 13)) for i in range(4))


class Picky(NoDefense):
    """Refuses, or breaks at, the requests of some prompts that come after the first few."""

    def __init__(self, names: set[str], error: type[LabError] = RefusedError, after: int = 0) -> None:
        self.names, self.error, self.after = names, error, after

    def prepare(
        self, bundle: Bundle, public_text: PublicText = NO_TEXT, seed: int = 0, folder: Path | None = None
    ) -> "PickyPrepared":
        plain = super().prepare(bundle, public_text, seed, folder)
        return PickyPrepared(**vars(plain), picky=self)


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class PickyPrepared(PlainPrepared):
    picky: Picky

    def deploy(self, boundary: Boundary) -> "PickyDeployment":
        return PickyDeployment(self.bundle, boundary, self.picky)


class PickyDeployment(PlainDeployment):
    def __init__(self, bundle: Bundle, boundary: Boundary, picky: Picky) -> None:
        super().__init__(bundle, boundary)
        self.picky = picky

    def generate(self, prompt: Prompt, max_new_tokens: int, draw: int | None = None) -> Generation:
        self.picky.after -= 1
        if prompt.id in self.picky.names and self.picky.after < 0:
            raise self.picky.error(f"nothing hides {prompt.id}")
        return super().generate(prompt, max_new_tokens, draw)


def served(defense: NoDefense) -> Seen:
    bundle = sources.random("llama")
    return serve(defense.prepare(bundle), PROMPTS, plain_answers(bundle, PROMPTS, 2), 2, Opening())


@pytest.mark.parametrize("refused", [{"p0"}, {"p1", "p3"}])
def test_only_what_was_served_is_scored(refused: set[str]) -> None:
    seen = served(Picky(refused))
    assert {prompt.id for prompt in seen.truth.prompts} == {prompt.id for prompt in PROMPTS} - refused
    found, items = score(seen, Findings(), Link("none"))
    assert found["refused_share"].mean == len(refused) / 4
    assert found["refused_share"].n == 4
    assert found["kl"].n == len(items) == 4 - len(refused)


def test_a_prompt_refused_when_it_is_recorded_is_refused_too() -> None:
    late = served(Picky({"p2"}, after=6))
    assert len(late.views) == 3, "served when timed (and to warm up), refused when recorded"
    assert late.utility.means["refused_share"].mean == 0.25
    assert len(served(Picky(set())).views) == 4


def test_when_all_are_refused_there_is_nothing_to_score() -> None:
    with pytest.raises(RefusedError, match="refuses all 4 prompts, the last one so: nothing hides p3"):
        served(Picky({"p0", "p1", "p2", "p3"}))
    with pytest.raises(RefusedError, match="none to score"):
        served(Picky({"p0", "p1", "p2", "p3"}, after=5))


@pytest.mark.parametrize("error", [PromptError, ProtocolError])
def test_what_is_no_refusal_is_raised(error: type[LabError]) -> None:
    with pytest.raises(error, match="nothing hides p2"):
        served(Picky({"p2"}, error))


def test_an_impostor_sees_nothing_of_a_prompt_refused() -> None:
    prepared = Picky({"p1"}).prepare(sources.random("llama"))
    seen = impersonated(prepared, PROMPTS[:2], lambda honest: honest, max_new_tokens=2)
    assert [one.refused for one in seen] == [False, True]
    assert (seen[1].view.messages, seen[1].view.length) == ((), 4)


@pytest.fixture
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three notes of which the second marks nothing."""
    path = tmp_path_factory.mktemp("data") / "notes.jsonl"
    lines = [
        {"text": "Patient Maria Keller was seen on Monday.", "spans": [{"start": 8, "end": 13, "type": "name"}]},
        {"text": "The patient was seen on Monday again.", "spans": []},
        {"text": "Patient Peter Keller was seen on Friday.", "spans": [{"start": 8, "end": 13, "type": "name"}]},
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


PO = ["defense=po", "defense.fakes=1", "defense.widenings=16", "defense.unmarked=refuse"]


@pytest.mark.parametrize("attack", ["prior", "active_queries", "guess_and_verify"])
def test_a_cell_goes_on_without_the_prompt_refused(in_folder: Path, small: list[str], attack: str) -> None:
    assert smd(["run", *PO, f"attack={attack}", *small]) == 0
    found = numbers(Path("results")).set_index("metric")
    assert found["mean"]["refused_share"] == pytest.approx(1 / 3)
    assert set(found["n"][["token_accuracy", "kl"]]) == {2}


def test_secrets_of_the_law_are_not_drawn_for_a_prompt_that_is_refused(in_folder: Path, small: list[str]) -> None:
    assert smd(["run", *PO, "defense.secrets=law", "attack=prior", *small]) == 0
    assert numbers(Path("results")).set_index("metric")["mean"]["refused_share"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["defense.metric=abs", "defense.epsilon=1e-9", "defense.widenings=0"], "refuses all 3 prompts"),
        (["max_new_tokens=510"], "exceed the context"),
    ],
)
def test_a_cell_of_refused_prompts_or_of_bad_ones_fails_with_one_line(
    in_folder: Path, small: list[str], words: list[str], reason: str
) -> None:
    assert smd(["run", *PO, "attack=prior", *small, *words]) == 1
    (folder,) = (Path("results") / "cells").iterdir()
    record = read(folder)
    assert record.status is Status.FAILED
    assert reason in record.reason
    assert "\n" not in record.reason
