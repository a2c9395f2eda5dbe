"""From the answer alone, and with the laws of its steps: what can be found is found, and nothing else."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from attacks.base import Public
from attacks.baselines.prior import Prior
from attacks.prompts.output_inversion.attack import LogitInversion, OutputInversion
from attacks.prompts.output_inversion.inverter import Inverter, Scribe, Whitening, fitted
from attacks.prompts.output_inversion.pairs import Block, Coordinates, Recipe, blocks
from attacks.prompts.output_inversion.search import InversionEffort, search
from attacks.prompts.output_inversion.verifier import Verifier
from smd_research.boundary import AdversaryView, Boundary
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import Guess
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.data.prompts import Prompt
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.defenses.smd import Smd
from smd_research.models import Bundle, sources
from smd_research.models.decoding import plain_greedy, plain_logits
from smd_research.training.causal_lm import Optimisation

Ids = tuple[int, ...]
SMALL = {
    "length": 8, "outputs": 8, "windows": 1, "samples": 0, "epochs": 1, "batch": 16, "learning_rate": 1e-3, "seed": 0,
    "proposals": 8, "candidates": 64, "round_size": 16, "branches": 2, "weight": 1.0, "first_weight": 1.0,
    "tolerance": 1e-6, "ranked": 5,
}  # fmt: skip


@cache
def _tiny() -> Bundle:
    return sources.random("llama")


@pytest.fixture(scope="module")
def tiny() -> Bundle:
    return _tiny()


@pytest.fixture(scope="module")
def embedded() -> Bundle:
    return sources.embedded()


def closed_set(bundle: Bundle) -> tuple[Ids, ...]:
    """Openings of a few public documents, ten tokens each."""
    return tuple(prompt.ids for prompt in tokenised(generate("mixed", "train", 24), bundle.tokenizer, 10))


def view_of(bundle: Bundle, ids: Ids, new: int = 8, defense: Smd | None = None) -> AdversaryView:
    with (defense or Smd()).prepare(bundle).deploy(Boundary()) as deployment:
        deployment.generate(Prompt("p", "", ids), new)
        return deployment.boundary.view(deployment.shows)


def attacked(
    kind: type[OutputInversion], bundle: Bundle, corpus: tuple[Ids, ...], *views: AdversaryView, **more: float
) -> list[Guess]:
    attack = kind(**{**SMALL, **more})  # type: ignore[arg-type]
    attack.fit(Public(bundle, "smd", (), corpus))
    return [attack.recover(view, np.random.default_rng(0)) for view in views]


def accuracy(guess: Guess, ids: Ids) -> float:
    return float(np.mean([a == b for a, b in zip(guess.ids[1:], ids[1:], strict=True)]))


# -- the whole attack -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", [OutputInversion, LogitInversion])
def test_texts_of_a_closed_set_come_back(embedded: Bundle, kind: type[OutputInversion]) -> None:
    corpus = closed_set(embedded)
    secrets = corpus[::6]
    weight = 1e4 if kind.reads_laws else 1.0
    more = {"length": 10, "outputs": 16, "epochs": 12, "learning_rate": 2e-3, "weight": weight, "first_weight": weight}
    guesses = attacked(kind, embedded, corpus, *(view_of(embedded, ids, new=16) for ids in secrets), **more)
    right = [accuracy(guess, ids) for guess, ids in zip(guesses, secrets, strict=True)]
    wrong = [accuracy(guesses[i], secrets[j]) for i in range(4) for j in range(4) if i != j]
    assert float(np.mean(right)) > 0.7
    assert float(np.mean(wrong)) < 0.25, "another prompt's answer gives that prompt"
    if kind.reads_laws:
        assert [guess.ids for guess in guesses] == list(secrets)
        assert all(guess.certified and not guess.exhausted for guess in guesses)
    else:
        assert all(guess.certified is None and guess.residual is None for guess in guesses)


def test_another_prompts_laws_give_that_prompt_and_not_this_one(tiny: Bundle) -> None:
    rng = np.random.default_rng(2)
    corpus = tuple(tuple(rng.integers(3, 4096, 8).tolist()) for _ in range(16))
    secrets = [tuple(rng.integers(3, 4096, 8).tolist()) for _ in range(4)]
    public = Public(tiny, "smd", (), corpus)
    prior = Prior()
    prior.fit(public)
    views = [view_of(tiny, ids) for ids in secrets]
    guesses = attacked(LogitInversion, tiny, corpus, *views, candidates=96)
    wrong = [accuracy(guesses[i], secrets[j]) for i in range(4) for j in range(4) if i != j]
    level = [accuracy(prior.recover(view, rng), ids) for view, ids in zip(views, secrets, strict=True)]
    assert float(np.mean(wrong)) <= float(np.mean(level)) + 0.05


def test_a_prefix_that_is_public_is_taken_over(tiny: Bundle) -> None:
    corpus = tuple(tuple(np.random.default_rng(i).integers(3, 4096, 8).tolist()) for i in range(16))
    secret = (9, 8, 7, 6, 5, 4)
    (guess,) = attacked(OutputInversion, tiny, corpus, view_of(tiny, secret, defense=Smd(public_tokens=4)))
    assert guess.ids[:4] == secret[:4]


def test_the_seed_decides_and_the_budget_holds(tiny: Bundle) -> None:
    corpus = tuple(tuple(np.random.default_rng(i).integers(3, 4096, 8).tolist()) for i in range(16))
    view = view_of(tiny, (5, 6, 7, 8, 9))
    one, two = (attacked(LogitInversion, tiny, corpus, view, candidates=40)[0] for _ in range(2))
    assert one == two
    assert one.spent.candidates <= 40 + one.spent.steps + 16, "the budget, a slope a round, and what retrieval took"
    assert one.exhausted


def test_what_it_needs(tiny: Bundle) -> None:
    assert OutputInversion.needs == {Observable.OUTPUT_TOKENS}
    assert LogitInversion.needs == {Observable.OUTPUT_TOKENS, Observable.QUERIES, Observable.PARTIAL_ATTENTION}
    with pytest.raises(NotApplicableError, match="no public text"):
        OutputInversion(**SMALL).fit(Public(tiny, "smd", ()))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1"):
        OutputInversion(**{**SMALL, "proposals": 0})  # type: ignore[arg-type]


# -- the parts --------------------------------------------------------------------------------------------------------


def test_answers_are_the_models_own(tiny: Bundle) -> None:
    corpus = tuple(tuple(np.random.default_rng(i).integers(3, 4096, 10).tolist()) for i in range(6))
    recipe = Recipe(6, 5, 1, 1, 1, 4, 1e-3, True)
    coordinates = Coordinates.draw(4096, tiny.geometry.width, generator(0, "c"))
    made = blocks(tiny, corpus, recipe, coordinates, generator(0, "p"))
    assert sum(len(block.prompts) for block in made) == 12
    for block in made:
        assert block.readings is not None
        for prompt, answer, read in zip(block.prompts.tolist(), block.answers.tolist(), block.readings, strict=True):
            assert tuple(answer) == plain_greedy(tiny, tuple(prompt), 5)
            expected = coordinates.read(plain_logits(tiny, tuple(prompt), tuple(answer)))
            torch.testing.assert_close(read[1:], expected[1:], rtol=1e-3, atol=1e-5)
            assert not read[0].any()


def test_the_coordinates_hold_the_whole_law(tiny: Bundle) -> None:
    """With width + 1 coordinates every other log-ratio is a linear function of those read (PILS)."""
    logits = plain_logits(tiny, (5, 6, 7), tuple(range(10, 10 + 200)))
    coordinates = Coordinates.draw(4096, tiny.geometry.width, generator(0, "c"))
    read = coordinates.read(logits).double()
    others = (logits - logits[:, coordinates.reference, None]).double()
    found = torch.linalg.lstsq(read[:150], others[:150]).solution
    error = (read[150:] @ found - others[150:]).abs().max()
    assert float(error) < 1e-3 * float(others.std())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_writing_with_a_cache_is_writing_without(family: str) -> None:
    bundle = sources.random(family)
    inverter = Inverter(bundle.model, Optimisation(1e-3, 1, 1), None).eval()
    answer, begun = torch.tensor([11, 12, 13, 14, 15]), torch.tensor([7, 8])
    written = inverter.write(answer, None, begun, 7, 3, np.random.default_rng(0))
    assert written.shape == (3, 7)
    assert (written[:, :2] == begun).all()
    law = inverter.law(answer, None, written[0])
    assert law.argmax(-1)[2:].tolist() == written[0, 2:].tolist()
    loss = float(inverter.loss(Block(written[:1], answer[None], None)))
    assert loss == pytest.approx(-float(law.gather(1, written[0][:, None]).mean()), rel=1e-4)


def test_the_inverter_knows_the_prompts_length_and_reads_the_answer(tiny: Bundle) -> None:
    inverter = Inverter(tiny.model, Optimisation(1e-3, 1, 1), None).eval()
    answer, prompt = torch.tensor([11, 12, 13]), torch.tensor([5, 6, 7, 8, 9, 10])
    law = inverter.law(answer, None, prompt)
    assert not torch.allclose(law[:3], inverter.law(answer, None, prompt[:3]), atol=1e-4), "another length"
    assert not torch.allclose(law, inverter.law(answer.flip(0), None, prompt), atol=1e-4), "another answer"
    torch.testing.assert_close(law[:4], inverter.law(answer, None, torch.tensor([5, 6, 7, 99, 98, 97]))[:4])


@pytest.mark.slow
def test_training_teaches_it_the_closed_set(tiny: Bundle) -> None:
    corpus = closed_set(tiny)
    recipe = Recipe(10, 8, 1, 0, 10, 8, 3e-3, True)
    inverter, coordinates = fitted(tiny, corpus, recipe, 0)
    assert fitted(tiny, corpus, recipe, 0)[0] is inverter, "trained once a process"
    fresh, _ = fitted(tiny, corpus, dataclasses.replace(recipe, epochs=1), 0)
    made = blocks(tiny, corpus, recipe, coordinates, generator(1, "pairs"))
    before, after = (np.mean([float(model.loss(block)) for block in made]) for model in (fresh, inverter))
    assert after < before - 1


def test_whitening_is_white_and_leaves_the_unseen_alone() -> None:
    rows = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) @ torch.randn(6, 6) + 3
    white = Whitening(rows)(torch.cat([rows, torch.zeros(1, 6)]))
    torch.testing.assert_close(torch.cov(white[:-1].T), torch.eye(6), rtol=1e-2, atol=1e-2)
    assert not white[-1].any()


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_the_verifier_knows_the_truth(data: st.DataObject) -> None:
    bundle = _tiny()
    prompt = data.draw(st.lists(st.integers(3, 4095), min_size=2, max_size=6))
    answer = plain_greedy(bundle, tuple(prompt), 5)
    laws = plain_logits(bundle, tuple(prompt), answer)
    position = data.draw(st.integers(0, len(prompt) - 1))
    other = data.draw(st.integers(3, 4095).filter(lambda token: token != prompt[position]))
    changed = [other if i == position else token for i, token in enumerate(prompt)]
    verifier = Verifier(bundle, torch.tensor(answer), laws[1:])
    true, wrong = verifier.weigh(torch.tensor([prompt, changed])).divergence.tolist()
    assert abs(true) < 1e-6  # the attack's own threshold
    assert wrong > true
    text = Verifier(bundle, torch.tensor(answer), None).weigh(torch.tensor([prompt]))
    likelihood = -functional.cross_entropy(laws, torch.tensor(answer), reduction="sum")
    assert float(text.evidence) == pytest.approx(float(likelihood), rel=1e-4)
    assert float(text.divergence) == 0


def test_slopes_are_derivatives(tiny: Bundle) -> None:
    prompt, answer = torch.tensor([5, 6, 7, 8]), torch.tensor([9, 10, 11, 12])
    verifier = Verifier(tiny, answer, None)
    slope = verifier.slopes(prompt)
    table = tiny.embedding
    for position, token in ((1, 30), (3, 40)):
        step = 1e-2

        def evidence(share: float, at: int = position, to: int = token) -> float:
            embedded = table[prompt][None].clone()
            embedded[0, at] += share * (table[to] - table[prompt[at]])
            return float(verifier._evidence(verifier._logits(embedded), 4)[1])

        central = (evidence(step) - evidence(-step)) / (2 * step)
        assert float(slope[position, token]) == pytest.approx(central, rel=0.05, abs=2e-3)
    assert not slope.gather(1, prompt[:, None]).any()


def test_the_search_keeps_what_is_known_and_only_gets_better(tiny: Bundle) -> None:
    prompt = torch.tensor([[5, 6, 7, 8, 9]])
    answer = torch.tensor(plain_greedy(tiny, (5, 60, 70, 8, 90), 6))
    verifier = Verifier(tiny, answer, None)
    scribe = Scribe(Inverter(tiny.model, Optimisation(1e-3, 1, 1), None).eval(), answer, None)
    fixed = torch.tensor([True, False, False, True, False])
    first = float(verifier.weigh(prompt).total(1.0))
    effort = InversionEffort(200, 16, 2, 1.0, 1.0, 1e-6)
    found = search(scribe, verifier, prompt, fixed, effort, np.random.default_rng(0))
    assert (found.prompts[:, [0, 3]] == torch.tensor([5, 8])).all()
    assert float(found.scores[0]) > first
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert len({tuple(row) for row in found.prompts.tolist()}) == len(found.prompts) <= 200


def test_the_evidence_gains_weight_while_the_budget_is_spent() -> None:
    effort = InversionEffort(100, 10, 2, 1000.0, 10.0, 1e-6)
    assert effort.weight_after(0) == pytest.approx(10)
    assert effort.weight_after(50) == pytest.approx(100)
    assert effort.weight_after(200) == pytest.approx(1000)
