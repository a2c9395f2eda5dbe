"""A learned inverter reads what the known client sends, and nothing through noise that drowns it."""

import math

import numpy as np
import pytest
import torch

from attacks.base import Public
from attacks.prompts.learned_inversion import LearnedInversion
from attacks.prompts.learned_inversion.inverter import Pair, _accuracy, directions, fitted, waves
from attacks.prompts.nearest_token import NearestToken
from attacks.prompts.vocab_matching import VocabMatching
from smd_research.boundary import AdversaryView, Boundary
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.wrapper import Wrapper
from smd_research.data.prompts import Prompt
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.defenses.base import Defense, Prepared, PublicText
from smd_research.defenses.dp_hidden import DpHidden
from smd_research.defenses.learned import Adversarial, InformationBottleneck, Obfuscator, Sparsify
from smd_research.defenses.split import Split
from smd_research.defenses.split_denoise import SplitDenoise
from smd_research.models import Bundle, sources

TOKENS = 16
FAST = {"length": TOKENS, "width": 32, "layers": 1, "steps": 4, "batch": 16}
BRIEF = {"steps": 2, "batch": 2, "row_tokens": 16}
Corpus = tuple[tuple[int, ...], ...]


@pytest.fixture(scope="module")
def embedded() -> Bundle:
    return sources.embedded()


@pytest.fixture(scope="module")
def secrets(embedded: Bundle) -> list[Prompt]:
    return tokenised(generate("mixed", "validation", 6, 0), embedded.tokenizer, TOKENS, 0)


@pytest.fixture(scope="module")
def corpus(embedded: Bundle) -> Corpus:
    return tuple(p.ids for p in tokenised(generate("mixed", "train", 400, 1), embedded.tokenizer, 64, 0))


def seen(
    defense: Defense, bundle: Bundle, corpus: Corpus, secrets: list[Prompt]
) -> tuple[Prepared, list[AdversaryView]]:
    prepared, views = defense.prepare(bundle, PublicText(corpus)), []
    with prepared.deploy(Boundary()) as deployment:
        for prompt in secrets:
            deployment.generate(prompt, 2)
            views.append(deployment.boundary.view(deployment.shows))
    return prepared, views


def read(
    attack: LearnedInversion | VocabMatching | NearestToken,
    prepared: Prepared,
    views: list[AdversaryView],
    corpus: Corpus,
) -> list[tuple[int, ...]]:
    attack.fit(Public(prepared.public, "any", prepared.parameters, corpus))
    return [attack.recover(view, np.random.default_rng(0)).ids for view in views]


def hits(guesses: list[tuple[int, ...]], secrets: list[Prompt]) -> float:
    pairs = [zip(guess[1:], secret.ids[1:], strict=True) for guess, secret in zip(guesses, secrets, strict=True)]
    return float(np.mean([a == b for pair in pairs for a, b in pair]))


def test_states_without_noise_are_read_at_the_embedding(
    embedded: Bundle, corpus: Corpus, secrets: list[Prompt]
) -> None:
    guesses = read(LearnedInversion(**FAST), *seen(Split(0), embedded, corpus, secrets), corpus)
    assert hits(guesses, secrets) >= 0.9


@pytest.mark.slow
def test_states_without_noise_are_read_behind_a_block(embedded: Bundle, corpus: Corpus, secrets: list[Prompt]) -> None:
    attack = LearnedInversion(length=TOKENS, width=64, layers=1, steps=250)
    guesses = read(attack, *seen(Split(1), embedded, corpus, secrets), corpus)
    assert hits(guesses, secrets) >= 0.9
    assert attack.recover(seen(Split(1), embedded, corpus, secrets)[1][0], np.random.default_rng(0)).facts[
        "inverter_accuracy"
    ] == pytest.approx(0.9, abs=0.1)


@pytest.mark.parametrize(
    "defense",
    [
        DpHidden(epsilon=0.01),
        DpHidden(layer=1, epsilon=0.01, survival=None),
        DpHidden(mechanism="dchi", epsilon=0.1),
        Obfuscator(layer=0, noise=1e4, **BRIEF),
    ],
    ids=["row by row", "as a whole", "radial", "clusters"],
)
def test_noise_that_drowns_the_states_leaves_chance(
    embedded: Bundle, corpus: Corpus, secrets: list[Prompt], defense: Defense
) -> None:
    """On its own view the inverter does no better than on that of another prompt."""
    guesses = read(LearnedInversion(**FAST), *seen(defense, embedded, corpus, secrets), corpus)
    other = hits(guesses[1:] + guesses[:1], secrets)
    assert hits(guesses, secrets) <= other + 0.05
    assert hits(guesses, secrets) < 0.3


@pytest.mark.parametrize(
    "defense",
    [
        Adversarial(layer=0, **BRIEF),
        InformationBottleneck(layer=0, **BRIEF),
        Sparsify(layer=0, share=0.5, **BRIEF),
        Obfuscator(layer=0, noise=0.1, **BRIEF),
        DpHidden(mechanism="dchi", epsilon=1e4),
        SplitDenoise(epsilon=1e4, steps=0),
    ],
    ids=["adversarial", "bottleneck", "sparsify", "obfuscator", "radial", "clipped after the noise"],
)
def test_each_attack_reads_a_client_that_hides_hardly_anything(
    embedded: Bundle, corpus: Corpus, secrets: list[Prompt], defense: Defense
) -> None:
    prepared, views = seen(defense, embedded, corpus, secrets[:2])
    for attack in (LearnedInversion(**FAST), NearestToken(), VocabMatching()):
        assert hits(read(attack, prepared, views, corpus), secrets[:2]) >= 0.8, type(attack).__name__


@pytest.mark.parametrize(
    ("defense", "least"),
    [
        (Sparsify(share=0.1, steps=0), 0.9),
        (InformationBottleneck(**BRIEF), 0.7),  # a beam of proposals misses rare words
        (Obfuscator(noise=0.1, **BRIEF), 0.7),
    ],
    ids=["sparsify", "bottleneck", "obfuscator"],
)
def test_matching_compares_what_would_be_sent(
    embedded: Bundle, corpus: Corpus, secrets: list[Prompt], defense: Defense, least: float
) -> None:
    prepared, views = seen(defense, embedded, corpus, secrets[:1])
    assert hits(read(VocabMatching(beam=3, shortlist=160), prepared, views, corpus), secrets[:1]) >= least
    without = prepared.parameters[:1]
    attack = VocabMatching()
    attack.fit(Public(embedded, "split", without, corpus))
    guess = attack.recover(views[0], np.random.default_rng(0))
    assert not guess.certified, "candidates as they are do not explain what was sent"


def test_an_inverter_is_trained_once(embedded: Bundle, corpus: Corpus) -> None:
    for defense in (Split(0), DpHidden(epsilon=8.0)):
        before = fitted.cache_info().misses
        for _ in range(2):
            parameters = defense.prepare(embedded, PublicText(corpus)).parameters
            LearnedInversion(**{**FAST, "seed": 5}).fit(Public(embedded, "any", parameters, corpus))
        assert fitted.cache_info().misses == before + 1


def test_longer_prompts_are_read_and_public_tokens_are_taken_over(embedded: Bundle, corpus: Corpus) -> None:
    secret = tokenised(generate("mixed", "validation", 1, 0), embedded.tokenizer, 24, 0)[0]
    prepared, (view,) = seen(Split(0), embedded, corpus, [secret])
    attack = LearnedInversion(**{**FAST, "length": 8})
    attack.fit(Public(embedded, "split", prepared.parameters, corpus))
    wrapped = AdversaryView(view.messages, view.shows, view.length, view.outputs, wrapper=Wrapper((77,), (78,)))
    guess = attack.recover(wrapped, np.random.default_rng(0))
    assert (guess.ids[0], guess.ids[-1]) == (77, 78)
    assert len(guess.ids) == 24
    assert hits([guess.ids[:-1]], [Prompt("p", "", secret.ids[:-1])]) > 0.9
    assert guess.spent.steps == FAST["steps"]


def test_what_is_public_anyway_does_not_count_as_read() -> None:
    class Drawn:
        def draw(self) -> Pair:
            return Pair(sent=torch.tensor([[5, 0, 7, 9, 6]] * 3), ids=torch.tensor([[5, 0, 7, 8, 6]] * 3))

    names = torch.eye(10)
    found = _accuracy(lambda sent: names[sent], Drawn(), Wrapper((5,), (6,)), {0})  # type: ignore[arg-type]
    assert found == 0.5, "of 7 and 8 one"


def test_directions_and_positions() -> None:
    rng = np.random.default_rng(0)
    table = sources.random("llama").embedding.float()
    found = directions(table)
    assert float((found.norm(dim=-1) - 1).abs().max()) < 1e-5
    places = waves(5, 7, table.device)
    assert places.shape == (5, 7)
    assert float(places[1, 0]) == pytest.approx(math.sin(1))
    assert not np.allclose(places[int(rng.integers(1, 5))], places[0])


def test_it_says_where_it_does_not_apply(embedded: Bundle, corpus: Corpus) -> None:
    for permute, text, said in (("sequence", corpus, "permute=sequence"), ("none", (), "no public text")):
        public = Public(embedded, "split", Split(1, permute).prepare(embedded).parameters, text)
        with pytest.raises(NotApplicableError, match=said):
            LearnedInversion(**FAST).fit(public)
    with pytest.raises(NotApplicableError, match="split parameters"):
        LearnedInversion(**FAST).fit(Public(embedded, "none", (), corpus))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "at least 1"),
        ({"layers": -1}, "at least 1, layers 0"),
        ({"learning_rate": 0.0}, "learning_rate above 0"),
        ({"width": 0}, "at least 1"),
    ],
)
def test_bad_options_are_one_line(options: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        LearnedInversion(TOKENS, **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
