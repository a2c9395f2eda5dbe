"""Rows of packed documents: fresh text for every row, a function of the seed and the row's number alone."""

from dataclasses import dataclass

import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from transformers import PreTrainedTokenizerFast

from smd_research.data.reference import stream

# Numbers reserved for a row: far more than one needs, and not a multiple of three, so that rows of the mixed stream
# start with each register in turn.
_DOCUMENTS_A_ROW = 1_000


@dataclass(frozen=True)
class PackedRows(Dataset[Tensor]):
    """Rows ``first <= r < first + count`` of an endless stream of documents.

    A row is ``<bos> document <eos> <bos> document <eos> ...`` cut at ``length`` tokens. As a row depends on nothing but
    ``seed`` and its number, training can stop and continue anywhere and sees the same text.
    """

    tokenizer: PreTrainedTokenizerFast
    register: str
    split: str
    seed: int
    length: int
    first: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        """Row ``first + index``: token ids, ``[length]``."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        ids: list[int] = []
        number = (self.first + index) * _DOCUMENTS_A_ROW
        while len(ids) < self.length:
            batch = stream(self.register, self.split, 4, self.seed, start=number)
            number += 4
            for encoded in self.tokenizer([document.text for document in batch])["input_ids"]:
                ids += [*encoded, self.tokenizer.eos_token_id]
        return torch.tensor(ids[: self.length])


class TextStream(lightning.LightningDataModule):  # type: ignore[misc]  # Lightning is untyped here
    """Training rows epoch by epoch (an epoch is ``steps`` batches of fresh text) and fixed validation rows."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, register: str, seed: int, row_tokens: int, batch: int, steps: int
    ) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._register = register
        self._seed = seed
        self._row_tokens = row_tokens
        self._batch = batch
        self._steps = steps

    def _rows(self, split: str, first: int, count: int) -> DataLoader[Tensor]:
        rows = PackedRows(self._tokenizer, self._register, split, self._seed, self._row_tokens, first, count)
        devices, own = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        # Of each batch every so many rows: all devices together see in a step what one would. Lightning would shuffle.
        shared: DistributedSampler[Tensor] = DistributedSampler(rows, devices, own, shuffle=False)
        return DataLoader(rows, batch_size=self._batch // devices, sampler=shared)

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Rows of the epoch that starts now (the trainer asks again before each epoch, also after a resume)."""
        rows = self._steps * self._batch
        epoch = self.trainer.current_epoch if self.trainer else 0
        return self._rows("train", epoch * rows, rows)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """The same 8 batches of the validation split each time."""
        return self._rows("validation", 0, 8 * self._batch)
