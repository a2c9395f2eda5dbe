"""Vocabulary matching against its naive form, every entry of the vocabulary at each position with no prefix cache.

And against the client's own pass; all stop at the layer observed. The attack reads whole prompts, and the bench refuses
to tell the speed of reading one that it does not read. The naive form takes vocabulary times the square of the length,
hours on the real model: it is timed on a few candidates of a few positions, among them the right one, which has to be
the nearest, and extrapolated.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from attacks.base import Public
from attacks.prompts.vocab_matching.attack import VocabMatching
from experiments.benches.case import Case, Measured, Modes, Settings, Side
from experiments.composing.cells import composed
from experiments.trials.lives import life_of
from experiments.trials.trial import lived
from experiments.trials.workbench import Workbench
from smd_research.core.errors import LabError
from smd_research.core.seeds import generator
from smd_research.models.bundle import Bundle
from smd_research.models.smollm2_package import installed
from smd_research.models.structure import blocks_of

ROWS = 512
"""Tokens in a batch of the naive form: as many candidates as that makes, each with its prefix, are timed."""

PLACES = 3
"""Positions at which it is timed, from the first to the last; its time at those between is interpolated."""


@dataclass(frozen=True)
class _Setting:
    """A model, the layers observed, and how many prompts of what length are read."""

    model: str
    layers: tuple[int, ...]
    prompts: int = 3
    tokens: int = 16


def _settings() -> Iterator[_Setting]:
    yield _Setting("embedded", (1, 3))
    if installed():
        yield _Setting("smollm2", (3, 15))


class _ReachedError(Exception):
    """Raised by the hook at the layer observed, so that the naive form runs no block it does not need."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


def naive_seconds(bundle: Bundle, ids: Sequence[int], layer: int, rng: np.random.Generator) -> float:
    """How long it would take to run every vocabulary entry at each position after the whole prefix, from scratch.

    Args:
        bundle: the public model.
        ids: of the prompt.
        layer: observed.
        rng: draws the candidates that are timed.

    Raises:
        LabError: where the right one is not the nearest of them.
    """
    vocab, states = bundle.geometry.vocab, _states_after(bundle, ids[:0], torch.tensor([ids]), layer)[0]
    places, seconds = np.linspace(0, len(ids) - 1, PLACES).round().astype(int), []
    for place in places.tolist():
        count = max(2, ROWS // (place + 1))
        others = rng.permutation([i for i in range(vocab) if i != ids[place]])[: count - 1]
        candidates = torch.tensor([ids[place], *others.tolist()])
        began = time.perf_counter()
        found = _states_after(bundle, ids[:place], candidates[:, None], layer)[:, -1]
        nearest = int((found - states[place]).norm(dim=-1).argmin())
        seconds.append((time.perf_counter() - began) / count * vocab)
        if nearest != 0:
            raise LabError(f"the naive form misses token {place}: the speed of reading it means nothing")
    return float(np.interp(range(len(ids)), places, seconds).sum())


@torch.inference_mode()
def _states_after(bundle: Bundle, prefix: Sequence[int], ends: Tensor, layer: int) -> Tensor:
    """States ``[c, rows, width]`` after ``layer`` blocks of a stock model fed with a prefix and each of ``ends``."""
    ids = torch.cat([torch.tensor(prefix, dtype=torch.long).expand(len(ends), -1), ends], dim=1).to(bundle.device)

    def stop(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        raise _ReachedError(hidden)

    handle = blocks_of(bundle.model, bundle.geometry.layers)[layer - 1].register_forward_hook(stop)
    try:
        bundle.model(input_ids=ids, use_cache=False)
    except _ReachedError as reached:
        return reached.hidden
    finally:
        handle.remove()
    raise LabError(f"layer {layer} was not reached")


def cases(settings: Settings) -> Iterator[Case | Modes]:
    """Tokens per second, and candidates per token, at an early and a middle layer."""
    workbench = Workbench()
    for setting in _settings():
        for layer in setting.layers:
            yield from _cases_at(setting, layer, settings, workbench)


def _cases_at(setting: _Setting, layer: int, settings: Settings, workbench: Workbench) -> Iterator[Case | Modes]:
    words = [f"model={setting.model}", "defense=split", f"defense.layer={layer}", "attack=vocab_matching"]
    words += [f"n_prompts={setting.prompts}", f"prompt_tokens={setting.tokens}", "max_new_tokens=1"]
    plan = composed([*words, f"seed={settings.seed}", f"threads={settings.threads}", f"device={settings.device}"])
    bundle = workbench.bundle(plan)
    seen = lived(plan, workbench, life_of(plan), plan.parts.defense())
    attack, corpus = cast(VocabMatching, plan.parts.attack()), workbench.corpus(plan)
    began = time.perf_counter()
    attack.fit(Public(bundle, "split", seen.prepared.parameters, corpus))
    fit_s = time.perf_counter() - began
    texts = [prompt.ids for prompt in seen.truth.prompts]
    tokens = sum(map(len, texts))
    tried = 0

    def ours() -> Measured:
        nonlocal tried
        began = time.perf_counter()
        guesses = [attack.recover(view, generator(settings.seed, "bench")) for view in seen.views]
        seconds = time.perf_counter() - began
        if [guess.ids for guess in guesses] != texts:
            raise LabError("a prompt was not read: the speed of reading it means nothing")
        tried = sum(guess.spent.candidates for guess in guesses)
        return Measured(tokens / seconds, {"fit_s": fit_s})

    def naive() -> float:
        rng = generator(settings.seed, "bench", "naive")
        return tokens / sum(naive_seconds(bundle, ids, layer, rng) for ids in texts)

    def plain() -> float:
        began = time.perf_counter()
        for ids in texts:
            _states_after(bundle, ids[:0], torch.tensor([ids]), layer)
        return tokens / (time.perf_counter() - began)

    name, repeats = f"{setting.model} layer={layer} tokens={setting.tokens}", min(settings.repeats, 3)
    modes: dict[str, Side] = {"naive (extrapolated)": naive, "vocab_matching": ours, "plain": plain}
    yield Modes(name, modes, "tokens/s", repeats, warmup=0)
    counted = (lambda: tried / tokens), partial(float, bundle.geometry.vocab)
    yield Case(f"{name} candidates vocab_matching/naive", *counted, "candidates/token", repeats=1, warmup=0)
