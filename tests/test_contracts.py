"""What every defense and every attack must hold to, run over all that are configured."""

import contextlib
import dataclasses
import json
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from attacks.base import Attack, MappingAttack, PromptAttack, Public
from attacks.cryptanalysis.ciphertext import read
from experiments.composing.app import VERSION_BASE
from experiments.composing.build import build
from experiments.composing.overrides import groups
from experiments.composing.smoke import bring_down
from experiments.trials.hosting import Offer, host, provider
from experiments.trials.pursuing import admit
from experiments.trials.seen import SERVE
from smd_research.boundary import AdversaryView, Boundary
from smd_research.boundary.addresses import address_of, listen
from smd_research.boundary.messages import token_tensor
from smd_research.boundary.remote import Remote
from smd_research.boundary.session import TRANSPORTS
from smd_research.core.errors import ConfigError, LabError, NotApplicableError, PromptError
from smd_research.core.guess import Guess
from smd_research.core.observable import Observable
from smd_research.core.paths import conf_dir
from smd_research.core.seeds import generator
from smd_research.data.prompts import Prompt
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.defenses.base import Defense, Generation, Prepared, PublicText
from smd_research.mechanisms.integers.masks import MaskStream
from smd_research.models import Bundle, sources

DEFENSES = sorted(groups(conf_dir())["defense"])
ATTACKS = sorted(set(groups(conf_dir())["attack"]) - {"none"})
TOKENS, NEW = 10, 6
QUICK = {
    "shaking": ["defense.awareness_steps=2", "defense.function_steps=1"],
    **{name: ["defense.steps=2"] for name in ("adversarial", "bottleneck", "sparsify", "obfuscator")},
    "split_denoise": ["defense.steps=2", "defense.documents=8"],
}
SMALL = {"attack": ["experiment=smoke"]}
"""How well an attack does is asked by its own tests: here the least that makes a guess will do."""
READ_NO_VIEW = {"random", "prior", "from_scratch", "canaries", "distinguishing"}
USERS_WEIGHTS = {"split_permuted", "shaking", "sentinel"}  # their provider's weights carry the user's secret


def _built(group: str, option: str, kind: type[Any]) -> Any:
    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        cfg = bring_down(compose("config", overrides=[f"{group}={option}", *QUICK.get(option, SMALL.get(group, []))]))
        return build(OmegaConf.to_container(cfg[group], resolve=True), kind)  # type: ignore[arg-type]


@cache
def _bundle() -> Bundle:
    return sources.random("llama")


@cache
def _prompts() -> tuple[Prompt, ...]:
    return tuple(tokenised(generate("mixed", "validation", 3, 0), _bundle().tokenizer, TOKENS, 0))


@cache
def _corpus() -> tuple[tuple[int, ...], ...]:
    return tuple(p.ids for p in tokenised(generate("mixed", "train", 60, 0), _bundle().tokenizer, 48, 0))


@pytest.fixture(autouse=True, scope="module")
def without_nonces() -> Iterator[None]:
    """One-time masks draw a nonce besides the seed: what a seed decides is everything but that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskStream, "opening", lambda stream: stream)
        yield


@dataclasses.dataclass(frozen=True)
class Run:
    """One defense over all prompts."""

    defense: Defense
    views: tuple[AdversaryView, ...]
    received: tuple[bytes, ...]
    generations: tuple[Generation, ...]
    prepared: Prepared


def _run(option: str, transport: str = "inproc", seed: int = 0, remote: Remote | None = None) -> Run:
    defense: Defense = _built("defense", option, Defense)
    prepared = defense.prepare(_bundle(), PublicText(_corpus()), seed)
    boundary = Boundary(transport, remote=remote)
    views, received, generations = [], [], []
    with prepared.deploy(boundary) as deployment:
        for prompt in _prompts():
            generations.append(deployment.generate(prompt, NEW))
            views.append(boundary.view(deployment.shows))
            received.append(boundary.received_by_untrusted())
        return Run(defense, tuple(views), tuple(received), tuple(generations), prepared)


@pytest.fixture(params=DEFENSES)
def defense(request: pytest.FixtureRequest) -> Iterator[str]:
    return request.param


_cached = cache(_run)


def test_a_defense_is_deterministic_by_its_seed(defense: str) -> None:
    one, two = _cached(defense), _run(defense)
    assert one.received == two.received
    assert [g.ids for g in one.generations] == [g.ids for g in two.generations]


def _same(one: Run, two: Run) -> bool:
    kinds, others = ([[type(m) for _, m in view.messages] for view in run.views] for run in (one, two))
    return kinds == others and [g.ids for g in one.generations] == [g.ids for g in two.generations]


@pytest.mark.parametrize("transport", [name for name in TRANSPORTS if name != "inproc"])
def test_all_transports_show_the_same(defense: str, transport: str) -> None:
    assert _same(_cached(defense), _run(defense, transport))


def test_a_provider_started_apart_shows_the_same_or_cannot_be(defense: str) -> None:
    """As ``smd serve`` starts it: from the configuration alone, without the user's seed or data."""
    configured: Defense = _built("defense", defense, Defense)
    if defense in USERS_WEIGHTS:
        with pytest.raises(ConfigError, match="use transport=process"):
            provider(configured, _bundle())
        return
    factory = provider(configured, _bundle())
    with contextlib.closing(listen("127.0.0.1:0")) as listener:
        server = threading.Thread(target=host, args=(listener, Offer(factory, {"defense": defense}), 1))
        server.start()
        there = _run(defense, "tcp", remote=Remote(address_of(listener), {"defense": defense}))
        server.join()
    assert _same(_cached(defense), there)


def test_a_defense_leaves_the_bundle_as_it_found_it(defense: str) -> None:
    _cached(defense)
    assert _bundle().fingerprint() == sources.random("llama").fingerprint()


def test_what_a_defense_gives_the_user_is_complete(defense: str) -> None:
    for generation in _cached(defense).generations:
        assert 1 <= len(generation.ids) <= NEW
        assert 0 < generation.ttft_s <= generation.total_s


def test_a_defense_shows_only_what_it_declares(defense: str) -> None:
    run = _cached(defense)
    assert all(view.shows == run.defense.shows for view in run.views)
    assert all(view.messages for view in run.views)


def test_public_parameters_are_plain_values_and_hold_no_randomness(defense: str) -> None:
    one, other = _cached(defense).prepared.published(), _run(defense, seed=1).prepared.published()
    plain = {key: value for key, value in one.items() if isinstance(value, str | int | float | bool | None)}
    assert json.dumps(plain) == json.dumps({key: other[key] for key in plain})


def test_the_secret_never_crosses_whole(defense: str) -> None:
    """Canary: the prompt's ids as bytes, in either width, are in what crossed exactly when a defense says so."""
    for prompt, received in zip(_prompts(), _cached(defense).received, strict=True):
        ids = token_tensor(prompt.ids)
        found = any(canary.numpy().tobytes() in received for canary in (ids, ids.long()))
        assert found == (Observable.TOKEN_IDS in _cached(defense).defense.shows)


def test_a_view_is_sealed_and_never_prints_its_content(defense: str) -> None:
    view = _cached(defense).views[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        view.length = 3  # type: ignore[misc]
    shown = repr(view) + repr(view.messages)
    assert _prompts()[0].text not in shown
    assert "tensor(" not in shown
    assert repr(_prompts()[0]).count(_prompts()[0].text) == 0


def test_bad_prompts_are_refused(defense: str) -> None:
    made: Defense = _built("defense", defense, Defense)
    with made.prepare(_bundle(), PublicText(_corpus())).deploy(Boundary()) as deployment:
        for ids in ((), (3,) * 600):
            with pytest.raises(PromptError) as caught:
                deployment.generate(Prompt("bad", "", ids), 4)
            assert "\n" not in str(caught.value)


def _guess(attack: Attack, view: AdversaryView) -> Guess | str:
    """What an attack on prompts makes of one view; the others look for something that one prompt does not hold."""
    if isinstance(attack, MappingAttack):
        return read(view, attack.solve([view], generator(0, "a")))
    if isinstance(attack, PromptAttack):
        return attack.recover(view, generator(0, "a"))
    return f"{type(attack).__name__} looks for no whole prompt"


def _twice(run: Run, name: str, attack: Attack) -> tuple[Guess | str, Guess | str]:
    """Two guesses from the same seed, or twice the reason why there is none."""
    try:
        admit(attack, SERVE, run.defense.shows)
        attack.fit(Public(_bundle(), name, run.prepared.parameters, _corpus()))
        return _guess(attack, run.views[0]), _guess(attack, run.views[0])
    except NotApplicableError as reason:
        return str(reason), str(reason)


@pytest.mark.parametrize("option", ATTACKS)
def test_every_attack_on_every_defense(defense: str, option: str) -> None:
    """Either not applicable, with a reason; or a guess of the right shape that the seed decides."""
    run = _cached(defense)
    one, two = _twice(run, defense, _built("attack", option, Attack))
    if isinstance(one, str):
        assert len(one) > 10
        assert "\n" not in one
        return
    assert one == two
    assert isinstance(one, Guess)
    assert len(one.ids) == run.views[0].length == TOKENS
    assert all(-1 <= token < _bundle().geometry.vocab for token in one.ids)
    assert all(isinstance(token, int) for token in one.ids)
    if one.ranked:
        assert len(one.ranked) == len(one.ids)
        assert [ranked[0] for ranked in one.ranked if ranked] == [
            token for token, ranked in zip(one.ids, one.ranked, strict=True) if ranked
        ]


@pytest.mark.parametrize("option", sorted(set(ATTACKS) - READ_NO_VIEW))
def test_an_attack_refuses_a_view_that_shows_too_little(option: str) -> None:
    with pytest.raises(NotApplicableError, match="does not show"):
        admit(_built("attack", option, Attack), SERVE, frozenset())


@pytest.mark.parametrize("option", ["random", "prior"])
def test_a_baseline_refuses_a_hidden_length(option: str) -> None:
    attack: PromptAttack = _built("attack", option, PromptAttack)
    attack.fit(Public(_bundle(), "none", (), _corpus()))
    with pytest.raises(LabError, match="length"):
        attack.recover(AdversaryView((), frozenset(), None, ()), np.random.default_rng(0))
