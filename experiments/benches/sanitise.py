"""Sanitising a text of SST-2's size with SanText: all tokens at once beside a loop over them, and at 49,152 tokens.

The text is drawn from a law of few frequent and many rare tokens. Two loops stand beside it: one that computes each
token's row of probabilities, and one that, as in released code, reads it from the whole matrix, whose making is not
timed. They read a few thousand tokens of the same text. Over a large vocabulary no matrix would fit.
"""

import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from experiments.benches.case import Case, Label, Measured, Settings
from smd_research.core.seeds import generator
from smd_research.mechanisms.privacy.channels import bundle_space
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace, Floats, Ids
from smd_research.mechanisms.privacy.token_channel import ExponentialChannel
from smd_research.models import sources
from smd_research.models.smollm2_package import installed

SENTENCES, TOKENS = 67_349, 13  # training sentences of SST-2, and tokens of one under a vocabulary of 49,152
RANK_EXPONENT = 1.4
EPSILON = 12.0
LOOPED = 2_000
LARGE = (49_152, 576)
MEGABYTE = 1e6


def made_text(space: EmbeddingSpace, seed: int, tokens: int = SENTENCES * TOKENS) -> Ids:
    """Private tokens ``[n]``; the one of rank r has a frequency as ``r ** -1.4``, ranks are dealt at random."""
    rng = generator(seed, "sanitise", "text")
    weights = np.arange(1, len(space.private_ids) + 1) ** -RANK_EXPONENT
    return rng.permutation(space.private_ids)[rng.choice(len(weights), size=tokens, p=weights / weights.sum())]


def at_once(channel: ExponentialChannel, text: Ids, seed: int) -> Measured:
    """Tokens a second of the channel, and the most memory that the run took beside the table and the text."""
    rng = generator(seed, "sanitise", "draws")
    channel.space.distances(text[:1])  # what a space computes once belongs to no text
    tracemalloc.start()
    try:
        began = time.perf_counter()
        channel.sample(text, rng)
        seconds = time.perf_counter() - began
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return Measured(len(text) / seconds, {"peak_mb": peak / MEGABYTE})


def by_row(channel: ExponentialChannel, text: Ids, seed: int) -> float:
    """Tokens a second of a loop that computes each token's probabilities."""
    return _looped(text, seed, lambda token: np.exp(channel.log_prob([token])[0][channel.space.private_ids]))


def by_matrix(matrix: Floats, space: EmbeddingSpace, text: Ids, seed: int) -> float:
    """Tokens a second of a loop that reads each token's probabilities."""
    return _looped(text, seed, lambda token: matrix[space.column[token]])


def _looped(text: Ids, seed: int, row: Callable[[int], Floats]) -> float:
    rng = generator(seed, "sanitise", "loop")
    began = time.perf_counter()
    for token in text.tolist():
        law = row(token)
        rng.choice(len(law), p=law / law.sum())
    return len(text) / (time.perf_counter() - began)


def cases(settings: Settings) -> Iterator[Case]:
    """Both loops over the embedded model's vocabulary; the large vocabulary alone."""
    space = bundle_space(sources.embedded())
    channel, text = ExponentialChannel(space, EPSILON), made_text(space, settings.seed)
    matrix = np.exp(channel.log_prob(space.private_ids)[:, space.private_ids])
    labels = _labels("embedded", space, text)
    name, ours = f"embedded vocab={space.vocab_size}", partial(at_once, channel, text, settings.seed)
    few = text[:LOOPED]
    loop, reading = partial(by_row, channel, few, settings.seed), partial(by_matrix, matrix, space, few, settings.seed)
    yield Case(f"{name} at_once/loop", ours, loop, "tokens/s", labels={**labels, "beside": "loop"})
    yield Case(f"{name} at_once/matrix_loop", ours, reading, "tokens/s", labels={**labels, "beside": "matrix loop"})
    del matrix
    model, space = _large(settings.seed)
    channel, text = ExponentialChannel(space, EPSILON), made_text(space, settings.seed)
    ours = partial(at_once, channel, text, settings.seed)
    labels = _labels(model, space, text)
    yield Case(f"{model} vocab={space.vocab_size}", ours, None, "tokens/s", repeats=1, warmup=0, labels=labels)


def _large(seed: int) -> tuple[str, EmbeddingSpace]:
    """The real model's table, or where its package is absent a random one of its shape."""
    if installed():
        return "smollm2", bundle_space(sources.smollm2())
    return "random_table", EmbeddingSpace.of(generator(seed, "sanitise", "table").normal(size=LARGE))


def _labels(model: str, space: EmbeddingSpace, text: Ids) -> dict[str, Label]:
    distinct = len(np.unique(text))
    return {"model": model, "vocab": space.vocab_size, "tokens": len(text), "distinct": distinct, "epsilon": EPSILON}
