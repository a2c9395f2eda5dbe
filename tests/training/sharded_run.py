"""A run in shards, which keeps the model after each epoch; Lightning starts this file again for the second device."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from smd_research.training.architecture import Llama
from smd_research.training.loop import Run, Trained, train

# A table whose rows two devices cannot share evenly; a clip that every gradient is longer than; a fifth epoch, after
# which rows of the validation split are read.
RUN = Run(
    architecture=Llama(
        hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=64, vocabulary=511, context=128
    ),
    register="mixed",
    seed=0,
    row_tokens=64,
    batch=4,
    steps=8,
    epoch_steps=2,
    learning_rate=1e-3,
    warmup=2,
    clip=0.05,
    tokenizer="train",
    tokenizer_documents=200,
    precision="32-true",
)


def kept(folder: Path, steps: int, devices: int, strategy: str) -> Trained | None:
    """Train in a folder for so many steps, or go on, and leave the weights there that an export would get."""

    def keep(model: PreTrainedModel, _tokenizer: PreTrainedTokenizerFast, step: int) -> None:
        torch.save(model.state_dict(), folder / f"{step}.pt")

    run = replace(RUN, steps=steps)
    return train(run, folder, "cpu", progress=False, on_epoch=keep, devices=devices, strategy=strategy)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for folder, steps in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        trained = kept(Path(folder), int(steps), 2, "fsdp")
        if trained is not None:
            torch.save(trained.model.state_dict(), Path(folder) / "end.pt")
