"""Vocabulary matching against its naive form: every entry of the vocabulary at each position, no prefix cache.

Both stop at the layer observed and both find the prompt; the bench refuses to compare speeds where either does not. The
naive form takes vocabulary times the square of the length: on the real model it reads a few tokens, which flatters it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from attacks.base import Public
from attacks.prompts.vocab_matching.attack import VocabMatching
from experiments.benches.case import Case, Settings
from experiments.composing.cells import composed
from experiments.trials.lives import life_of
from experiments.trials.trial import lived
from experiments.trials.workbench import Workbench
from smd_research.boundary.messages import HiddenStates
from smd_research.core.errors import LabError
from smd_research.core.seeds import generator
from smd_research.models.bundle import Bundle
from smd_research.models.smollm2_package import installed
from smd_research.models.structure import blocks_of

BATCH = 512


@dataclass(frozen=True)
class _Setting:
    """A model, the layers observed, the length of the prompt, and how often each side is measured at most."""

    model: str
    layers: tuple[int, ...]
    tokens: int
    repeats: int


def _settings() -> Iterator[_Setting]:
    yield _Setting("embedded", (1, 3), 12, 3)
    if installed():
        yield _Setting("smollm2", (3, 15), 3, 1)


class _ReachedError(Exception):
    """Raised by the hook at the layer observed, so that the naive form runs no block it does not need."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


def naive(bundle: Bundle, states: Tensor, layer: int) -> tuple[int, ...]:
    """Match each row of ``states [n, width]`` with every vocabulary entry after the whole prefix, from scratch."""
    found: list[int] = []
    for row in states:
        distances = [
            (_states_after(bundle, found, batch, layer) - row).norm(dim=-1)
            for batch in torch.split(torch.arange(bundle.geometry.vocab), BATCH)
        ]
        found.append(int(torch.cat(distances).argmin()))
    return tuple(found)


@torch.inference_mode()
def _states_after(bundle: Bundle, prefix: list[int], candidates: Tensor, layer: int) -> Tensor:
    """States ``[c, width]`` after ``layer`` blocks of a stock model fed with the prefix and each candidate."""
    ids = torch.cat([torch.tensor([prefix] * len(candidates), dtype=torch.long), candidates[:, None]], dim=1)

    def stop(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        raise _ReachedError(hidden[:, -1])

    handle = blocks_of(bundle.model, bundle.geometry.layers)[layer - 1].register_forward_hook(stop)
    try:
        bundle.model(input_ids=ids, use_cache=False)
    except _ReachedError as reached:
        return reached.hidden
    finally:
        handle.remove()
    raise LabError(f"layer {layer} was not reached")


def cases(settings: Settings) -> Iterator[Case]:
    """Tokens per second, and candidates per token, at an early and a middle layer."""
    workbench = Workbench()
    for setting in _settings():
        for layer in setting.layers:
            yield from _cases_at(setting, layer, settings, workbench)


def _cases_at(setting: _Setting, layer: int, settings: Settings, workbench: Workbench) -> Iterator[Case]:
    words = [f"model={setting.model}", "defense=split", f"defense.layer={layer}", "attack=vocab_matching"]
    words += ["n_prompts=1", f"prompt_tokens={setting.tokens}", "max_new_tokens=1", f"seed={settings.seed}"]
    plan = composed([*words, f"threads={settings.threads}", f"device={settings.device}"])
    bundle = workbench.bundle(plan)
    seen = lived(plan, workbench, life_of(plan), plan.parts.defense())
    (view,), (prompt,) = seen.views, seen.truth.prompts
    states = view.of(HiddenStates)[0].hidden.float()
    attack = cast(VocabMatching, plan.parts.attack())
    attack.fit(Public(bundle, "split", seen.prepared.parameters, workbench.corpus(plan)))

    guess = attack.recover(view, generator(settings.seed, "bench"))
    name = f"{setting.model} layer={layer} tokens={setting.tokens}"
    ours = partial(_tokens_per_s, lambda: attack.recover(view, generator(settings.seed, "bench")).ids, prompt.ids)
    theirs = partial(_tokens_per_s, partial(naive, bundle, states, layer), prompt.ids)
    repeats = min(settings.repeats, setting.repeats)
    yield Case(f"{name} vocab_matching/naive", ours, theirs, "tokens/s", repeats, warmup=0)
    counted = partial(float, guess.spent.candidates / setting.tokens), partial(float, bundle.geometry.vocab)
    yield Case(f"{name} candidates vocab_matching/naive", *counted, "candidates/token", repeats=1, warmup=0)


def _tokens_per_s(recover: Callable[[], Sequence[int]], truth: Sequence[int]) -> float:
    """The speed of a recovery that is right.

    Raises:
        LabError: where it is not.
    """
    began = time.perf_counter()
    found = recover()
    seconds = time.perf_counter() - began
    if tuple(found) != tuple(truth):
        raise LabError("a prompt was not read: the speed of reading it means nothing")
    return len(truth) / seconds
