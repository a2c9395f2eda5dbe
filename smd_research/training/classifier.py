"""A causal language model that classifies: its body reads a text, a head on the pooled states names the class."""

from typing import Any, Literal

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from smd_research.data.texts import Labelled
from smd_research.training.causal_lm import Optimisation, optimizers

Pooling = Literal["last", "mean"]


class Classifier(lightning.LightningModule):  # type: ignore[misc]  # Lightning is untyped here
    """Cross-entropy over classes.

    Args:
        model: a stock causal language model; its body is used, and its output matrix where words stand for classes.
        classes: number of classes.
        pooling: ``last`` token's state, or the ``mean`` over the text.
        words: token id that stands for each class ``[classes]``: the logits are the model's own for these tokens.
            Empty: a linear head of its own, drawn from torch's global generator.
        optimisation: of AdamW.
    """

    def __init__(
        self, model: PreTrainedModel, classes: int, pooling: Pooling, words: Tensor, optimisation: Optimisation
    ) -> None:
        super().__init__()
        self.model = model
        self.optimisation = optimisation
        self._pooling = pooling
        self.register_buffer("words", words.long(), persistent=False)
        table = model.get_input_embeddings().weight
        self.readout = None
        if not len(words):
            self.readout = nn.Linear(table.shape[1], classes, device=table.device)
            nn.init.normal_(self.readout.weight, std=0.02)
            nn.init.zeros_(self.readout.bias)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Logits ``[rows, classes]`` of texts ``[rows, longest]`` that are padded on the right.

        Vectors ``[rows, longest, width]`` are read in the place of rows of the embedding.
        """
        read = {"inputs_embeds" if ids.is_floating_point() else "input_ids": ids}
        positions = torch.arange(ids.shape[1], device=ids.device)
        mask = positions < lengths[:, None]
        states = self.model.base_model(**read, attention_mask=mask.long(), use_cache=False).last_hidden_state
        if self._pooling == "last":
            pooled = states[torch.arange(len(ids), device=ids.device), lengths - 1]
        else:
            pooled = (states * mask[..., None]).sum(1) / lengths[:, None]
        if self.readout is not None:
            logits: Tensor = self.readout(pooled)
            return logits
        head = self.model.get_output_embeddings()
        bias = head.bias[self.words] if head.bias is not None else None
        return nn.functional.linear(pooled, head.weight[self.words], bias)

    def loss(self, batch: Labelled) -> Tensor:
        """Mean cross-entropy in nats a text."""
        ids, lengths, labels = batch
        return nn.functional.cross_entropy(self(ids, lengths).float(), labels)

    def training_step(self, batch: Labelled) -> Tensor:
        """One batch."""
        return self.loss(batch)

    def validation_step(self, batch: Labelled) -> None:
        """Loss on held-out texts."""
        self.log("validation_loss", self.loss(batch), batch_size=len(batch[1]))

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW and the schedule, stepped every batch."""
        return optimizers(self, self.optimisation)
