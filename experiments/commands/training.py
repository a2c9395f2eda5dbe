"""What ``smd train`` does: train, export, measure, write the card."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from experiments.composing.build import build
from smd_research.core.errors import ConfigError
from smd_research.core.paths import PACKAGE
from smd_research.models.loading import load
from smd_research.training.architecture import Architecture
from smd_research.training.card import card, samples
from smd_research.training.export import export
from smd_research.training.heldout import held_out, trigram_of_train
from smd_research.training.loop import Run, train


def run_of(cfg: DictConfig) -> Run:
    """The training run that a configuration describes.

    Raises:
        ConfigError: if ``steps`` is not a multiple of ``epoch_steps``.
    """
    fields = {name: cfg[name] for name in Run.__dataclass_fields__ if name != "architecture"}
    shape: Any = OmegaConf.to_container(cfg.architecture, resolve=True)
    run = Run(build(shape, Architecture), **fields)
    if run.steps % run.epoch_steps:
        raise ConfigError(f"steps={run.steps} is not a multiple of epoch_steps={run.epoch_steps}; change one of them")
    return run


@contextmanager
def _started_again_as_given() -> Iterator[None]:
    """Let Lightning start this command once more for each further device, by the words that it finds it called with."""
    before = sys.argv
    sys.argv = [str(Path(sys.executable).with_name("smd")), "train", *before[1:]]
    try:
        yield
    finally:
        sys.argv = before


def trained_as(cfg: DictConfig) -> None:
    """Train what a configuration describes, and write it.

    Raises:
        ConfigError: for a model that is not trained here, or a run that cannot be.
    """
    choice = HydraConfig.get().runtime.choices.get("model")
    if choice != "embedded":
        raise ConfigError(
            f"model={choice} cannot be trained here; choose architecture=, or use transformers' own trainer"
        )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(cfg.threads)
    out = Path(cfg.out_dir) if cfg.out_dir else PACKAGE / "models" / "embedded"

    def early_export(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, step: int) -> None:
        if step % cfg.export_every == 0:
            export(model, tokenizer, out)

    run = run_of(cfg)
    on_epoch = early_export if cfg.export_every else None
    with _started_again_as_given():
        trained = train(
            run, Path(cfg.work_dir), cfg.accelerator, cfg.progress, cfg.compile, on_epoch, cfg.devices, cfg.strategy
        )
    if trained is None:
        return
    export(trained.model, trained.tokenizer, out)
    # What is measured is what ships: the weights as they come back from fp16.
    shipped = replace(trained, model=load(out, torch.float32, local_files_only=True)[0])
    trigram_tokens = run.tokens if cfg.trigram_tokens is None else cfg.trigram_tokens
    trigram = trigram_of_train(shipped.tokenizer, run.register, trigram_tokens, run.seed + 2)
    held = held_out(shipped.model, shipped.tokenizer, trigram)
    written = samples(shipped.model, shipped.tokenizer, run.seed)
    text = card(run, shipped, held, written, trigram_tokens, out / "model.safetensors", cfg.title, cfg.note)
    (out / "README.md").write_text(text, encoding="utf-8")
    for row in held:
        print(f"{row.register}: perplexity {row.model:.2f} on {row.tokens} held-out tokens, trigram {row.trigram:.2f}")
    print(f"written to {out}")
