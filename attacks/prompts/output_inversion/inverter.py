"""The learned inverter: a copy of the public model, taught to write the prompt after having read the answer.

The copy reads ``answer, prompt`` with every token at its true absolute position, which tells it the prompt's length,
and keeps what the public model knows of the language. What the laws of the steps say enters as a whitened linear
reading added to the answer's embeddings (PILS, arXiv 2506.17090, section 4).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import DynamicCache, PreTrainedModel

from attacks.prompts.output_inversion.pairs import Block, Coordinates, Recipe, blocks
from smd_research.core.seeds import generator
from smd_research.core.wrapper import BARE, Wrapper
from smd_research.models.bundle import Bundle
from smd_research.models.decoding import with_cache
from smd_research.training.causal_lm import Optimisation, optimizers
from smd_research.training.quiet import quietly


class Whitening(nn.Module):
    """Log-ratios ``[..., d]`` to values of zero mean and unit covariance; the unseen, all-zero reading stays zero."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, readings: Tensor) -> None:
        """Measure.

        Args:
            readings: a sample ``[n, d]``.
        """
        super().__init__()
        mean = readings.double().mean(0)
        values, vectors = torch.linalg.eigh(torch.cov((readings.double() - mean).T))
        scale = values.clamp(min=1e-6 * float(values.max())).rsqrt()
        self.register_buffer("mean", mean.float())
        self.register_buffer("matrix", (vectors * scale).float())

    def forward(self, readings: Tensor) -> Tensor:
        """Whiten."""
        seen = (readings != 0).any(-1, keepdim=True)
        whitened = (readings - self.mean) @ self.matrix
        return torch.where(seen, whitened, 0.0)


class Inverter(lightning.LightningModule):  # type: ignore[misc]  # Lightning is untyped here
    """Reads an answer, writes prompts.

    Args:
        model: stock causal LM, trained in place.
        optimisation: of the training.
        whitening: of the readings, when laws are read.
    """

    def __init__(self, model: PreTrainedModel, optimisation: Optimisation, whitening: Whitening | None) -> None:
        super().__init__()
        self.model = model
        self.optimisation = optimisation
        self.whitening = whitening
        table = model.get_input_embeddings().weight
        self.reader = nn.Linear(whitening.mean.shape[0], table.shape[1], bias=False) if whitening else None
        if self.reader:
            nn.init.normal_(self.reader.weight, std=float(table.std()) / self.reader.in_features**0.5)

    def _answer(self, answers: Tensor, readings: Tensor | None) -> Tensor:
        """Embedded answers ``[b, outputs, width]``."""
        embedded: Tensor = self.model.get_input_embeddings()(answers)
        if self.reader is None or self.whitening is None or readings is None:
            return embedded
        read: Tensor = self.reader(self.whitening(readings))
        return embedded + read

    @staticmethod
    def _positions(length: int, outputs: int, device: torch.device) -> Tensor:
        """True positions of the answer, then of the prompt ``[1, outputs + length]``."""
        order = [*range(length, length + outputs), *range(length)]
        return torch.tensor([order], device=device)

    def _logits(self, answers: Tensor, readings: Tensor | None, prompts: Tensor) -> Tensor:
        """Logits ``[b, n, vocab]`` of each token of ``prompts [b, n]``, given the answer and the tokens before it."""
        length, outputs = prompts.shape[1], answers.shape[1]
        written = self.model.get_input_embeddings()(prompts[:, :-1])
        embedded = torch.cat([self._answer(answers, readings), written], 1)
        positions = self._positions(length, outputs, embedded.device)[:, :-1].expand(len(embedded), -1)
        # a mask is given since positions that jump would else be taken for packed sequences
        everything = torch.ones(embedded.shape[:2], dtype=torch.long, device=embedded.device)
        whole = self.model(inputs_embeds=embedded, position_ids=positions, attention_mask=everything, use_cache=False)
        logits: Tensor = whole.logits[:, outputs - 1 :].float()
        return logits

    def loss(self, block: Block) -> Tensor:
        """Mean cross-entropy of the prompts' tokens in nats."""
        logits = self._logits(block.answers, block.readings, block.prompts)
        return nn.functional.cross_entropy(logits.flatten(0, 1), block.prompts.flatten())

    def training_step(self, block: Block) -> Tensor:
        """One block."""
        return self.loss(block)

    def configure_optimizers(self) -> object:
        """AdamW and its schedule."""
        return optimizers(self, self.optimisation)

    @torch.inference_mode()
    def law(self, answer: Tensor, readings: Tensor | None, prompt: Tensor) -> Tensor:
        """Log-probabilities ``[n, vocab]`` of every token in each place of ``prompt [n]``, given what precedes."""
        logits = self._logits(answer[None], None if readings is None else readings[None], prompt[None])
        return torch.log_softmax(logits[0], -1)

    @torch.inference_mode()
    def write(
        self,
        answer: Tensor,
        readings: Tensor | None,
        begun: Tensor,
        length: int,
        count: int,
        rng: np.random.Generator,
    ) -> Tensor:
        """Write prompts for one answer.

        Args:
            answer: token ids ``[outputs]``.
            readings: of its laws ``[outputs, d]``.
            begun: the prompts' first tokens ``[p]``, fewer than ``length``.
            length: tokens of a prompt.
            count: how many prompts.
            rng: of the draws.

        Returns:
            Prompts ``[count, length]``: the greedy one first, then draws from the inverter's law.
        """
        device = answer.device
        draws = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        positions = self._positions(length, len(answer), device)
        cache = DynamicCache(config=self.model.config)
        embedded = self._answer(answer[None], None if readings is None else readings[None])
        embedded = torch.cat([embedded, self.model.get_input_embeddings()(begun)[None]], 1)
        logits = self._step(cache, positions[:, : embedded.shape[1]], inputs_embeds=embedded).expand(count, -1)
        cache.batch_repeat_interleave(count)
        ids = begun.expand(count, -1)
        while True:
            token = torch.multinomial(torch.softmax(logits, -1), 1, generator=draws)
            token[0] = logits[0].argmax()
            ids = torch.cat([ids, token], 1)
            if ids.shape[1] == length:
                return ids
            at = len(answer) + ids.shape[1] - 1
            logits = self._step(cache, positions[:, at : at + 1].expand(count, -1), input_ids=token)

    def _step(self, cache: DynamicCache, positions: Tensor, **fed: Tensor) -> Tensor:
        """Logits ``[b, vocab]`` after feeding one more stretch."""
        held = cache.get_seq_length() + positions.shape[1]
        everything = torch.ones(len(positions), held, dtype=torch.long, device=positions.device)
        cached = with_cache(self.model, cache)
        out = self.model(**fed, position_ids=positions, attention_mask=everything, **cached, use_cache=True)
        logits: Tensor = out.logits[:, -1].float()
        return logits


@dataclass(frozen=True)
class Scribe:
    """An inverter that has read one answer ``[outputs]`` with its readings ``[outputs, d]``, on the model's device."""

    inverter: Inverter
    answer: Tensor
    readings: Tensor | None

    def law(self, prompt: Tensor) -> Tensor:
        """See ``Inverter.law``."""
        return self.inverter.law(self.answer, self.readings, prompt)

    def write(self, begun: Tensor, length: int, count: int, rng: np.random.Generator) -> Tensor:
        """See ``Inverter.write``."""
        return self.inverter.write(self.answer, self.readings, begun, length, count, rng)


class _Blocks(Dataset[Block]):
    def __init__(self, made: Sequence[Block]) -> None:
        self._made = made

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, index: int) -> Block:
        return self._made[index]


def _as_it_is(block: Any) -> Any:
    """A block is a batch already."""
    return block


@lru_cache(maxsize=4)
def fitted(
    bundle: Bundle, corpus: tuple[tuple[int, ...], ...], recipe: Recipe, seed: int, wrapper: Wrapper = BARE
) -> tuple[Inverter, Coordinates | None]:
    """An inverter trained on public pairs, with the coordinates it reads; kept for the next cell of the process.

    Args:
        bundle: the public model.
        corpus: token ids of public documents.
        recipe: what the pairs are made of and how it is trained.
        seed: of pairs and training.
        wrapper: public tokens around every prompt.
    """
    width, vocabulary = bundle.geometry.width, bundle.geometry.vocab
    coordinates = Coordinates.draw(vocabulary, width, generator(seed, "coordinates")) if recipe.logits else None
    made = blocks(bundle, corpus, recipe, coordinates, generator(seed, "pairs"), wrapper)
    whitening = None
    if recipe.logits:
        rows = torch.cat([block.readings[:, 1:].flatten(0, 1) for block in made if block.readings is not None])
        whitening = Whitening(rows)
    steps = recipe.epochs * len(made)
    on_gpu = bundle.device.type == "cuda"
    with torch.random.fork_rng(devices=[]), quietly():
        torch.manual_seed(int(generator(seed, "inverter").integers(2**62)))
        copied = copy.deepcopy(bundle.model).float().requires_grad_(True).train()
        inverter = Inverter(copied, Optimisation(recipe.learning_rate, max(1, steps // 20), steps), whitening)
        trainer = lightning.Trainer(
            accelerator="gpu" if on_gpu else "cpu",
            devices=1,
            precision="bf16-mixed" if on_gpu else "32-true",  # few CPUs have bf16, the others take ten times as long
            max_epochs=recipe.epochs,
            gradient_clip_val=1.0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(inverter, DataLoader(_Blocks(made), batch_size=None, shuffle=True, collate_fn=_as_it_is))
    inverter.to(bundle.device).eval().requires_grad_(False)
    return inverter, coordinates
