"""Leak, utility and time of a randomised defense come from one draw: what crosses is the same in each of its passes."""

from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

from experiments.composing.app import VERSION_BASE
from experiments.composing.build import build
from experiments.composing.overrides import groups
from experiments.trials.plain import plain_answers
from experiments.trials.serving import Opening, serve
from smd_research.boundary import Boundary
from smd_research.boundary.messages import HiddenStates, MaskedInput, Message, PartialAttention, PromptIds
from smd_research.core.paths import conf_dir
from smd_research.data.prompts import Prompt
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.defenses.base import Defense, Deployment, PublicText
from smd_research.models import Bundle, sources

NEW = 3
QUICK = ["defense.awareness_steps=0", "defense.function_steps=0"]
RANDOMISED: dict[str, tuple[type[Message], list[str]]] = {
    "dp_text": (PromptIds, ["defense=dp_text"]),
    "dp_text by neighbours": (PromptIds, ["defense=dp_text", "defense.mechanism=dchi"]),
    "dp_rewrite": (PromptIds, ["defense=dp_rewrite"]),
    "dp_hidden": (HiddenStates, ["defense=dp_hidden"]),
    "dp_hidden deeper": (HiddenStates, ["defense=dp_hidden", "defense.layer=1", "defense.epsilon=8"]),
    "dp_hidden by distance": (HiddenStates, ["defense=dp_hidden", "defense.mechanism=dchi"]),
    "split_denoise": (HiddenStates, ["defense=split_denoise", "defense.steps=1", "defense.documents=8"]),
    "bottleneck": (HiddenStates, ["defense=bottleneck", "defense.steps=1"]),
    "obfuscator": (HiddenStates, ["defense=obfuscator", "defense.steps=1"]),
    "po": (PartialAttention, ["defense=po", "defense.fakes=2", "defense.sticky=false"]),
    "po asked twice": (PartialAttention, ["defense=po", "defense.fakes=2", "defense.requests=2"]),
    "smd": (PartialAttention, ["defense=smd", "defense.noise_multiplier=1", "defense.noise_log_weight=1"]),
    "split_permuted": (HiddenStates, ["defense=split_permuted"]),
    "shaking": (PromptIds, ["defense=shaking", "defense.homophones=3", "defense.frequent=400", *QUICK]),
    "shaking with fresh noise": (PromptIds, ["defense=shaking", "defense.fresh_epsilon=1", *QUICK]),
    "slip with float masks": (MaskedInput, ["defense=slip", "defense.masking=float", "defense.verify=0"]),
}
"""Defenses that draw something for each request, and the message that carries it."""
SCORED_OTHERWISE = {"slip with float masks", "po", "po asked twice"}
"""A whole text is scored in one message, whose masks are drawn together; a fake's answer is not its own when it is
dictated (``tests/defenses/test_po.py`` looks at the fakes themselves)."""
WARMED_APART = {"po", "po asked twice"}
"""Fakes that a warm-up drew would be there to be recalled: it decodes copies of the prompt instead."""
UNRANDOMISED = {"adversarial", "none", "sentinel", "sparsify", "split"}


@cache
def bundle() -> Bundle:
    return sources.random("llama")


@cache
def prompts() -> tuple[Prompt, ...]:
    """Two prompts, the first of which is asked once more."""
    found = tokenised(generate("mixed", "validation", 2, 0), bundle().tokenizer, 12, 0)
    return *found, replace(found[0], id="again")


@cache
def corpus() -> tuple[tuple[int, ...], ...]:
    return tuple(p.ids for p in tokenised(generate("mixed", "train", 60, 0), bundle().tokenizer, 48, 0))


def defense_of(words: list[str]) -> Defense:
    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        cfg = compose("config", overrides=words)
        return build(OmegaConf.to_container(cfg.defense, resolve=True), Defense)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Sent:
    """One request of a deployment."""

    deployment: Deployment
    kind: str
    draw: int
    messages: tuple[Message, ...]

    def of(self, kind: type[Message]) -> list[bytes]:
        """What a kind of message held, one entry a message."""
        return [b"".join(tensor_bytes(message)) for message in self.messages if isinstance(message, kind)]


def tensor_bytes(message: Message) -> list[bytes]:
    values = (getattr(message, one.name) for one in fields(message))
    return [value.contiguous().numpy().tobytes() for value in values if isinstance(value, Tensor)]


@dataclass(frozen=True)
class Recording(Opening):
    """Every pass is recorded, the timed one too."""

    def boundary(self, *, record: bool) -> Boundary:
        return super().boundary(record=True)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Sent]:
    """Every request from now on."""
    found: list[Sent] = []

    def watched(method: Any) -> Any:
        def watching(deployment: Deployment, *arguments: Any) -> Any:
            answer = method(deployment, *arguments)
            messages = tuple(message for _, message in deployment.boundary.view(deployment.shows).messages)
            found.append(Sent(deployment, method.__name__, deployment.draw, messages))
            return answer

        return watching

    for method in (Deployment.generate, Deployment.score):
        monkeypatch.setattr(Deployment, method.__name__, watched(method))
    return found


def lived(words: list[str]) -> None:
    prepared = defense_of(words).prepare(bundle(), PublicText(corpus()), seed=5)
    serve(prepared, prompts(), plain_answers(bundle(), prompts(), NEW), NEW, Recording())


def passes(sent: list[Sent]) -> tuple[list[Sent], list[Sent], list[Sent]]:
    """What was timed (the warm-up first), recorded and scored."""
    timed = [one for one in sent if one.deployment is sent[0].deployment]
    assert {one.kind for one in timed} == {"generate"}
    rest = sent[len(timed) :]
    assert {one.deployment for one in rest} == {rest[0].deployment}
    return timed, [one for one in rest if one.kind == "generate"], [one for one in rest if one.kind == "score"]


@pytest.mark.parametrize("name", RANDOMISED)
def test_every_pass_has_the_draw_of_the_others(name: str, sent: list[Sent]) -> None:
    kind, words = RANDOMISED[name]
    lived(words)
    timed, recorded, scored = passes(sent)
    count = len(prompts())
    timed = timed if name in WARMED_APART else timed[1:]
    assert [one.draw for one in timed] == [*range(count)]
    assert [one.draw for one in recorded] == [*range(count)]
    releases = [one.of(kind) for one in recorded]
    assert all(releases)
    assert [one.of(kind) for one in timed] == releases
    assert {one.draw for one in scored} == set(range(count))
    if name not in SCORED_OTHERWISE:
        assert all(one.of(kind)[0] == releases[one.draw][0] for one in scored)
    if name != "po asked twice":  # whose fakes stay with a secret
        assert releases[0][0] != releases[-1][0], "a prompt that is asked again has a draw of its own"


def test_one_time_masks_are_never_drawn_twice(sent: list[Sent]) -> None:
    lived(["defense=slip"])
    timed, recorded, scored = passes(sent)
    masked = [message for one in (*timed, *recorded, *scored) for message in one.of(MaskedInput)]
    assert len(set(masked)) == len(masked)


def test_every_defense_is_looked_at() -> None:
    looked_at = {words[0].removeprefix("defense=") for _, words in RANDOMISED.values()} | UNRANDOMISED
    assert looked_at == set(groups(conf_dir())["defense"])
