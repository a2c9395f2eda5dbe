"""Canaries in private tuning: texts that nobody writes, each put in by a coin of its own, then looked for in the model.

What comes out goes to an audit (:mod:`smd_research.mechanisms.privacy.one_run_audit`): how far the guessed coins are
right bounds the epsilon of the training from below.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import generator
from smd_research.data.texts import Texts
from smd_research.training.buckets import in_order
from smd_research.training.causal_lm import CausalLM, Optimisation
from smd_research.training.classifier import Classifier
from smd_research.training.methods import Machine, Private, Tuning
from smd_research.training.private import text_losses
from smd_research.training.tuning import tune

_AT_ONCE = 64


@dataclass(frozen=True, repr=False)
class CanaryGame:
    """One training with canaries.

    Attributes:
        included: whether each canary was tuned on ``[m]``.
        scores: how much smaller its loss is for the tuned model than one would expect ``[m]``, in nats.
        epsilon: that the training claims; infinite where it claims nothing.
        delta: beside it.
    """

    included: NDArray[np.bool_]
    scores: NDArray[np.float64]
    epsilon: float
    delta: float


def drawn_canaries(count: int, tokens: int, pool: Sequence[int], classes: int, seed: int) -> Texts:
    """Texts of drawn tokens, each with a drawn class: no other text helps to learn one.

    Args:
        count: how many.
        tokens: of each.
        pool: token ids to draw from.
        classes: to draw from; 0 gives none.
        seed: of the draws.
    """
    rng = generator(seed, "canaries")
    ids = rng.choice(np.asarray(pool, dtype=np.int64), (count, tokens))
    labels = tuple(rng.integers(0, classes, count).tolist()) if classes else ()
    return Texts(tuple(map(tuple, ids.tolist())), labels)


def play(
    start: PreTrainedModel,
    training: Texts,
    held_out: Texts,
    canaries: Texts,
    tuning: Tuning,
    *,
    classes: int,
    seed: int,
    folder: Path,
    machine: Machine | None = None,
) -> CanaryGame:
    """Tune once with about half of the canaries among the texts, and score all of them with what comes out.

    Args:
        start: the model; never modified.
        training: texts to tune on besides.
        held_out: texts held out, as for ``tune``.
        canaries: to put in or to leave out.
        tuning: how; its promise is what is tested.
        classes: number of classes; 0 tunes the next token.
        seed: of the coins, and of the tuning.
        folder: where the run keeps its checkpoints.
        machine: where it trains.

    Raises:
        ConfigError: without canaries; and as ``tune``.
    """
    if not canaries.ids:
        raise ConfigError("a game of canaries needs some: see drawn_canaries")
    included = generator(seed, "canary coins").random(len(canaries.ids)) < 0.5
    chosen = np.flatnonzero(included)
    both = Texts(
        (*training.ids, *(canaries.ids[row] for row in chosen)),
        (*training.labels, *(canaries.labels[row] for row in chosen)) if classes else (),
    )
    words = torch.zeros(0, dtype=torch.long)
    tuned = tune(start, both, held_out, tuning, classes=classes, words=words, seed=seed, folder=folder, machine=machine)
    scores = -losses(tuned.module, canaries)
    if not classes:  # what is odd from the start is no sign of having been left out
        scores += losses(CausalLM(start, Optimisation(0.0, 1, 1)), canaries)
    if not isinstance(tuning, Private):
        return CanaryGame(included, scores, np.inf, 0.0)
    spent = tuning.spending(len(both.ids))
    return CanaryGame(included, scores, spent.epsilon(tuned.outcome.steps), spent.delta)


@torch.inference_mode()
def losses(module: Classifier | CausalLM, texts: Texts) -> NDArray[np.float64]:
    """The loss of each text in nats ``[n]``.

    Args:
        module: in evaluation mode.
        texts: with classes where the module tells them.
    """
    device = next(module.parameters()).device
    found = np.zeros(len(texts.ids))
    for rows in in_order(texts.lengths, _AT_ONCE):
        ids, lengths, labels = (part.to(device) for part in texts.batch(rows))
        found[rows] = text_losses(module, (ids, lengths, labels)).double().cpu().numpy()
    return found
