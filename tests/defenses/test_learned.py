"""A client learns what to send: its loss falls, its answer stays near, and it is taught once."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from smd_research.boundary import Boundary
from smd_research.boundary.messages import HiddenStates
from smd_research.core.errors import ConfigError
from smd_research.data.prompts import Prompt
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.defenses.base import PublicText
from smd_research.defenses.learned import Adversarial, InformationBottleneck, Obfuscator, Sparsify
from smd_research.defenses.learned.base import Learned
from smd_research.defenses.learned.obfuscator import centres
from smd_research.models import Bundle, sources
from smd_research.models.decoding import plain_greedy

SIZES = {"batch": 4, "row_tokens": 16}
MAKERS: dict[str, Callable[..., Learned]] = {
    "adversarial": Adversarial,
    "bottleneck": InformationBottleneck,
    "obfuscator": Obfuscator,
    "sparsify": Sparsify,
}
PROMPT = Prompt("p", "", (5, 6, 7, 8, 9))


@pytest.fixture(scope="module")
def llama() -> Bundle:
    return sources.random("llama")


@pytest.fixture(scope="module")
def text(llama: Bundle) -> PublicText:
    return PublicText(tuple(p.ids for p in tokenised(generate("mixed", "train", 60, 0), llama.tokenizer, 48, 0)))


def sent(defense: Learned, bundle: Bundle, text: PublicText) -> torch.Tensor:
    with defense.prepare(bundle, text, seed=3).deploy(Boundary()) as deployment:
        deployment.generate(PROMPT, 3)
        return deployment.boundary.view(deployment.shows).of(HiddenStates)[0].hidden


@pytest.mark.parametrize("name", MAKERS)
def test_the_loss_falls_and_nothing_is_promised(name: str, llama: Bundle, text: PublicText) -> None:
    prepared = MAKERS[name](steps=24, learning_rate=5e-3, **SIZES).prepare(llama, text, seed=1)
    assert len(prepared.losses) == 24
    assert sum(prepared.losses[-6:]) < 0.98 * sum(prepared.losses[:6])
    assert prepared.guarantee is None
    assert not any(parameter.requires_grad for parameter in prepared.release.parameters())
    assert "tensor" not in repr(prepared.parameters).lower()


@pytest.mark.parametrize("name", MAKERS)
def test_a_client_is_taught_once(name: str, llama: Bundle, text: PublicText) -> None:
    one, two = (MAKERS[name](steps=1, **SIZES).prepare(llama, text, seed=1) for _ in range(2))
    assert one.release is two.release
    other = MAKERS[name](steps=1, **SIZES).prepare(llama, text, seed=2)
    assert other.release is not one.release


def test_at_no_strength_the_answer_is_the_stock_models(llama: Bundle, text: PublicText) -> None:
    for defense in (Adversarial(steps=0), Sparsify(share=1.0, steps=0), Obfuscator(noise=0.0, steps=0)):
        with defense.prepare(llama, text).deploy(Boundary()) as deployment:
            assert deployment.generate(PROMPT, 5).ids == plain_greedy(llama, PROMPT.ids, 5)


def test_the_largest_coordinates_cross_and_no_others(llama: Bundle) -> None:
    defense = Sparsify(share=0.25, steps=0)
    with defense.prepare(llama).deploy(Boundary()) as deployment:
        deployment.generate(PROMPT, 3)
        views = deployment.boundary.view(deployment.shows).of(HiddenStates)
    assert all(((view.hidden != 0).sum(-1) == round(0.25 * llama.geometry.width)).all() for view in views)


@pytest.mark.parametrize("name", ["bottleneck", "obfuscator"])
def test_noise_hangs_on_the_seed_and_the_draw(name: str, llama: Bundle, text: PublicText) -> None:
    defense = MAKERS[name](steps=1, **SIZES)
    assert torch.equal(sent(defense, llama, text), sent(defense, llama, text))
    with defense.prepare(llama, text, seed=3).deploy(Boundary()) as deployment:
        seen = []
        for draw in (0, 1, 0):
            deployment.generate(PROMPT, 2, draw)
            seen.append(deployment.boundary.view(deployment.shows).of(HiddenStates)[0].hidden)
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


def test_without_public_text_nothing_is_sent(llama: Bundle) -> None:
    refused = pytest.raises(ConfigError, match="has not learned what to send: it needs public text")
    with Adversarial().prepare(llama).deploy(Boundary()) as deployment, refused:
        deployment.generate(PROMPT, 2)
    with pytest.raises(ConfigError, match="do not fill a row"):
        Adversarial(steps=1).prepare(llama, PublicText([(5, 6, 7)]))


def test_clusters_are_found_where_they_are() -> None:
    true = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    noise = 0.1 * torch.randn(3, 20, 2, generator=torch.Generator().manual_seed(0))
    found = centres((true[:, None] + noise).flatten(0, 1), 3, torch.tensor([0, 20, 40]))
    torch.testing.assert_close(found, true, rtol=0, atol=0.1)
    alone = centres(true, 2, torch.tensor([0, 0]))
    assert bool(alone.isfinite().all())


@pytest.mark.parametrize(
    ("maker", "options", "said"),
    [
        (Adversarial, {"strength": -1.0}, "defense.strength=-1 is out of range"),
        (InformationBottleneck, {"beta": float("nan")}, "defense.beta=nan is out of range"),
        (Sparsify, {"share": 0.0}, "defense.share=0 is out of range"),
        (Sparsify, {"share": 1.5}, "defense.share=1.5 is out of range"),
        (Obfuscator, {"noise": -0.1}, "defense.noise=-0.1 is out of range"),
        (Obfuscator, {"clusters": 0}, "defense.clusters=0 is out of range"),
        (Adversarial, {"layer": -1}, "defense.layer=-1 is out of range"),
        (Adversarial, {"steps": -1}, "defense.steps=-1 is out of range"),
        (Adversarial, {"row_tokens": 1}, "defense.row_tokens=1 is out of range"),
        (Adversarial, {"learning_rate": 0.0}, "defense.learning_rate=0 is out of range"),
        (Adversarial, {"wire_dtype": "int8"}, "wire_dtype=int8 is unknown"),
    ],
)
def test_bad_options_are_one_line(maker: Callable[..., Learned], options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        maker(**options)
    assert "\n" not in str(error.value)


def test_a_cut_behind_the_last_block_is_refused(llama: Bundle, text: PublicText) -> None:
    with pytest.raises(ConfigError, match=r"defense\.layer=9 is out of range"):
        Adversarial(layer=9).prepare(llama, text)


def test_options_are_public(llama: Bundle, text: PublicText) -> None:
    published = Obfuscator(steps=1, **SIZES).prepare(llama, text).published()
    assert {"layer": 1, "noise": 0.5, "clusters": 100, "steps": 1}.items() <= published.items()
    with pytest.raises(dataclasses.FrozenInstanceError):
        Obfuscator().lesson.noise = 2.0  # type: ignore[misc]
