"""The inverter: a small transformer that reads all rows of a message and names the token behind each.

It learns on what the known client sends for public text, with fresh noise in every batch, so that one trained for a
layer and a mechanism is conditioned on both. Its answer starts from a linear inverse, ridge regression from what is
sent to the public embeddings; attention over the message adds what neighbours tell.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from smd_research.core.seeds import generator
from smd_research.core.wrapper import Wrapper
from smd_research.mechanisms.releases import Moments, Release, SimulatedClient
from smd_research.mechanisms.split_inference import SplitParameters
from smd_research.models.bundle import Bundle
from smd_research.training.causal_lm import Optimisation, optimizers
from smd_research.training.quiet import StepBar, quietly

# Of the batches, this share has texts of the full length; the others any shorter one.
FULL_LENGTH = 0.75
# So many texts have so many of their tokens replaced by any of the vocabulary: secrets are rare words.
SCRAMBLED, STRANGE = 0.25, 0.5
_HEAD_WIDTH = 32  # or the next wider one that divides the width
_HELD_OUT = 32
"""At least one document in so many is held out."""
_FIRST_BATCHES, _LAST_BATCHES = 16, 4
"""Batches to which the linear inverse is fitted, and those on which the accuracy is measured."""
_RIDGE = 1e-4
_SHARPNESS = 10.0
"""Of the softmax before training: what a difference of one in cosine is worth in nats."""


@dataclass(frozen=True)
class Training:
    """How an inverter is made.

    Attributes:
        length: tokens of the longest text to learn from.
        width: of the transformer.
        layers: of it; 0 has the linear inverse alone.
        steps: optimiser steps.
        batch: texts of a step.
        learning_rate: peak.
    """

    length: int
    width: int
    layers: int
    steps: int
    batch: int
    learning_rate: float


class Pair(NamedTuple):
    """What was sent ``[b, n, width]`` for texts ``[b, n]``."""

    sent: Tensor
    ids: Tensor


class StateInverter(lightning.LightningModule):  # type: ignore[misc]  # Lightning is untyped here
    """Names tokens by states.

    Args:
        table: public embeddings ``[vocab, e]``.
        examples: what was sent for public text, to measure and to fit the linear inverse to.
        training: sizes and schedule.
    """

    table: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, table: Tensor, examples: Pair, training: Training) -> None:
        super().__init__()
        sent, width = examples.sent.flatten(0, 1), training.width
        moments = Moments.of(sent)
        self.register_buffer("table", directions(table))
        self.register_buffer("mean", moments.mean)
        self.register_buffer("scale", moments.scale)
        self.linear = nn.Linear(sent.shape[1], table.shape[1])
        self._fit(self._standardised(sent), self.table[examples.ids.flatten()])
        self.enter, self.leave = nn.Linear(sent.shape[1], width), nn.Linear(width, table.shape[1])
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        heads = next(count for count in range(max(1, width // _HEAD_WIDTH), 0, -1) if width % count == 0)
        blocks = [
            nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(training.layers)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.sharpness = nn.Parameter(torch.tensor(math.log(_SHARPNESS)))
        self.bias = nn.Parameter(torch.zeros(len(table)))
        warmup = max(1, training.steps // 20)
        self._optimisation = Optimisation(training.learning_rate, warmup, training.steps, weight_decay=0.01)

    def _standardised(self, sent: Tensor) -> Tensor:
        return (sent - self.mean) / self.scale

    @torch.no_grad()
    def _fit(self, inputs: Tensor, targets: Tensor) -> None:
        """Let the linear part be the ridge regression of ``targets [rows, e]`` on standardised ``inputs``."""
        offset = targets.mean(0)
        gram = inputs.T @ inputs
        gram.diagonal().add_(_RIDGE * len(inputs))
        self.linear.weight.copy_(torch.linalg.solve(gram, inputs.T @ (targets - offset)).T)
        self.linear.bias.copy_(offset)

    def forward(self, sent: Tensor) -> Tensor:
        """Logits ``[b, n, vocab]`` of the token behind each row of messages ``[b, n, width]``."""
        rows = self._standardised(sent)
        read: Tensor = self.linear(rows)
        if self.blocks:
            inner = self.enter(rows) + waves(rows.shape[1], self.enter.out_features, rows.device)
            for block in self.blocks:
                inner = block(inner)
            read = read + self.leave(inner)
        logits: Tensor = self.sharpness.exp() * (read @ self.table.T) + self.bias
        return logits

    def training_step(self, pair: Pair) -> Tensor:
        """Mean cross-entropy of one batch, nats."""
        return functional.cross_entropy(self(pair.sent).flatten(0, 1), pair.ids.flatten())

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW and the schedule, stepped every batch."""
        return optimizers(self, self._optimisation)


def directions(table: Tensor) -> Tensor:
    """A direction of length one for each token ``[vocab, e]``: of whitened embeddings, which crowd nowhere."""
    centred = (table - table.mean(0)).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    scale = values.clamp_min(1e-6 * float(values.max())).rsqrt()
    return functional.normalize(centred @ (vectors * scale), dim=-1).float()


def waves(length: int, width: int, device: torch.device) -> Tensor:
    """Sinusoidal positions ``[length, width]``: a message longer than those learned from has its own."""
    place = torch.arange(length, device=device)[:, None].float()
    turn = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10_000.0) / width))
    both = torch.cat([torch.sin(place * turn), torch.cos(place * turn)], -1)
    return both[:, :width]


class Lines(IterableDataset[Pair]):
    """Endless batches of public text and of what the client sends for it.

    Args:
        client: simulates.
        corpus: token ids of public documents.
        training: lengths and batch.
        wrapper: public tokens around every text.
        device: of the client.
        rng: draws texts and noise.
        strange: so many tokens there are to put strange words from; 0 puts none.
    """

    def __init__(
        self,
        client: SimulatedClient,
        corpus: Sequence[Sequence[int]],
        training: Training,
        wrapper: Wrapper,
        device: torch.device,
        rng: np.random.Generator,
        strange: int = 0,
    ) -> None:
        self._client, self._training, self._wrapper = client, training, wrapper
        self._device, self._rng, self._strange = device, rng, strange
        self._corpus = sorted(corpus, key=len, reverse=True)

    def __iter__(self) -> Iterator[Pair]:
        while True:
            yield self.draw()

    def draw(self) -> Pair:
        """One batch: openings of documents and, as often, windows behind their first token; some with strange words."""
        longest = min(self._training.length, len(self._corpus[0]))
        full = self._rng.random() < FULL_LENGTH
        length = longest if full else int(self._rng.integers(1, longest + 1))
        enough = sum(len(document) >= length for document in self._corpus)
        texts = []
        for index in self._rng.integers(0, enough, self._training.batch):
            document = self._corpus[int(index)]
            start = int(self._rng.integers(0, len(document) - length + 1)) if self._rng.random() < 0.5 else 0
            window = np.array([document[0], *document[start + 1 : start + length]])
            if self._strange and self._rng.random() < SCRAMBLED:
                strange = self._rng.integers(0, self._strange, length)
                window = np.where(self._rng.random(length) < STRANGE, strange, window)
            texts.append(self._wrapper.around(window.tolist()))
        ids = torch.tensor(texts, device=self._device)
        return Pair(self._client.sent(ids, self._rng), ids)


@dataclass(frozen=True, repr=False, eq=False)
class FittedInverter:
    """An inverter, and what it read of public text that it had not seen.

    Attributes:
        inverter: trained.
        accuracy: share of held-out tokens named; neither special ones nor those of the wrapper count.
    """

    inverter: StateInverter
    accuracy: float


@lru_cache(maxsize=4)
def fitted(
    bundle: Bundle,
    cut: SplitParameters,
    release: Release,
    corpus: tuple[tuple[int, ...], ...],
    wrapper: Wrapper,
    training: Training,
    seed: int,
) -> FittedInverter:
    """An inverter of what a client sends; kept for the next cell of the process.

    Args:
        bundle: the public model.
        cut: where it is cut.
        release: what happens to the states before they cross, by identity.
        corpus: token ids of public documents.
        wrapper: public tokens around every prompt.
        training: how it is made.
        seed: of texts, noise and training.
    """
    client, device = SimulatedClient(bundle, cut, release), bundle.device
    order = generator(seed, "inverter", "split").permutation(len(corpus))
    held = order[: max(1, len(corpus) // _HELD_OUT)] if len(corpus) > 1 else order
    rest = order[len(held) :] if len(corpus) > 1 else order
    vocab = bundle.geometry.vocab
    parts = {
        name: Lines(
            client, [corpus[i] for i in part], training, wrapper, device, generator(seed, "inverter", name), strange
        )
        for name, part, strange in (("fit", rest, vocab), ("train", rest, vocab), ("held out", held, 0))
    }
    with torch.random.fork_rng(devices=[]), quietly():
        torch.manual_seed(int(generator(seed, "inverter", "weights").integers(2**62)))
        inverter = StateInverter(bundle.embedding.float(), _examples(parts["fit"]), training).to(device)
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision="32-true",
            max_steps=training.steps,
            gradient_clip_val=1.0,
            callbacks=[StepBar("the inverter learns", training.steps)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(inverter, DataLoader(parts["train"], batch_size=None))
    inverter.to(device).eval().requires_grad_(False)
    return FittedInverter(inverter, _accuracy(inverter, parts["held out"], wrapper, bundle.special_ids))


def _examples(lines: Lines) -> Pair:
    """Rows of several batches as one text, whatever their lengths."""
    drawn = [lines.draw() for _ in range(_FIRST_BATCHES)]
    sent, ids = torch.cat([one.sent.flatten(0, 1) for one in drawn]), torch.cat([one.ids.flatten() for one in drawn])
    return Pair(sent[None], ids[None])


@torch.inference_mode()
def _accuracy(inverter: StateInverter, lines: Lines, wrapper: Wrapper, special: Collection[int]) -> float:
    """Share named of the tokens that are not public anyway; NaN where there are none."""
    right = []
    for one in (lines.draw() for _ in range(_LAST_BATCHES)):
        place = wrapper.place(one.ids.shape[1])
        ids, named = one.ids[:, place], inverter(one.sent).argmax(-1)[:, place]
        counts = ~torch.isin(ids, torch.tensor(sorted(special), device=ids.device))
        right.append((named == ids)[counts])
    return float(torch.cat(right).float().mean())
