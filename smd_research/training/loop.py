"""The training run: build, resume, train, export."""

import logging
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from smd_research.core.errors import ConfigError
from smd_research.data.synthetic import generate
from smd_research.models.sources import EMBEDDED_DIR
from smd_research.training.architecture import Architecture
from smd_research.training.causal_lm import CausalLM, Optimisation
from smd_research.training.checkpoints import resumable
from smd_research.training.packing import TextStream
from smd_research.training.quiet import quietly
from smd_research.training.sharded import Sharded, ShardedLM, whole
from smd_research.training.tokenizer import train_tokenizer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One training run; everything that decides its result but for hardware.

    Attributes:
        architecture: shape of the model.
        register: register of the synthetic text, ``mixed`` for all.
        seed: seed of initialisation and text.
        row_tokens: tokens of a packed row.
        batch: rows of an optimiser step.
        steps: optimiser steps; a multiple of ``epoch_steps``.
        epoch_steps: steps between checkpoints.
        learning_rate: peak learning rate.
        warmup: steps of warm-up.
        clip: largest norm of the gradient.
        tokenizer: ``train`` learns one on the train split, ``embedded`` takes the one that ships.
        tokenizer_documents: documents of the train split that a tokenizer of its own learns from.
        precision: Lightning's name of the arithmetic, ``bf16-mixed`` or ``32-true``.
    """

    architecture: Architecture
    register: str
    seed: int
    row_tokens: int
    batch: int
    steps: int
    epoch_steps: int
    learning_rate: float
    warmup: int
    clip: float
    tokenizer: str
    tokenizer_documents: int
    precision: str

    @property
    def tokens(self) -> int:
        """Training tokens of the whole run."""
        return self.steps * self.batch * self.row_tokens


@dataclass(frozen=True)
class Trained:
    """What a run left: the model (fp32, on the CPU), its tokenizer, and what it took."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    steps: int
    seconds: float
    hardware: str


def hardware() -> str:
    """The class of machine, e.g. ``2 CPU cores, AMD EPYC``."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = found[0] if found else name
    return f"{torch.get_num_threads()} CPU cores, {name}"


class Stopwatch(Callback):  # type: ignore[misc]  # Lightning is untyped here
    """Seconds spent in training, kept in the checkpoint so that a resumed run reports the sum."""

    def __init__(self) -> None:
        self._before = 0.0
        self._started: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds of training so far, earlier parts of a resumed run included."""
        return self._before + (0.0 if self._started is None else time.perf_counter() - self._started)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the watch once the loop runs."""
        self._started = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self._before = state_dict["seconds"]


class ReportLoss(Callback):  # type: ignore[misc]  # Lightning is untyped here
    """One line of the log each epoch, and ``on_epoch``, in every process, for exports while training goes on."""

    def __init__(self, on_epoch: Callable[[int], None]) -> None:
        self._on_epoch = on_epoch

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Report."""
        shown = ", ".join(f"{name} {float(value):.3f}" for name, value in trainer.callback_metrics.items())
        if trainer.is_global_zero:
            _log.info("step %d: %s", trainer.global_step, shown)
        self._on_epoch(trainer.global_step)


def tokenizer_of(run: Run, folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a run: the one that ships; or read from ``folder``, or trained and stored there.

    Raises:
        ConfigError: for an unknown choice, or a vocabulary that is not the shipped tokenizer's.
    """
    if run.tokenizer == "embedded":
        return _shipped_tokenizer(run.architecture.vocabulary)
    if run.tokenizer != "train":
        raise ConfigError(f"tokenizer={run.tokenizer} is unknown: use train or embedded")
    stored = folder / "tokenizer"
    if not (stored / "tokenizer.json").is_file():
        documents = generate(run.register, "train", run.tokenizer_documents, seed=run.seed + 1)
        texts = (document.text for document in documents)
        part = folder / "tokenizer.part"
        shutil.rmtree(part, ignore_errors=True)
        train_tokenizer(texts, run.architecture.vocabulary, run.architecture.context).save_pretrained(part)
        part.rename(stored)
    return PreTrainedTokenizerFast.from_pretrained(stored)


def _shipped_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(EMBEDDED_DIR)
    if len(tokenizer) != vocabulary:
        raise ConfigError(
            f"architecture.vocabulary={vocabulary}: the shipped tokenizer has {len(tokenizer)}; use that, or "
            "tokenizer=train"
        )
    return tokenizer


def train(
    run: Run,
    folder: Path,
    accelerator: str = "auto",
    progress: bool = True,
    compile_model: bool = False,
    on_epoch: Callable[[PreTrainedModel, PreTrainedTokenizerFast, int], None] | None = None,
    devices: int = 1,
    strategy: str = "auto",
) -> Trained | None:
    """Train, or continue the run whose checkpoint lies in ``folder``.

    Args:
        run: what to train.
        folder: where the tokenizer and the checkpoint of the run live.
        accelerator: Lightning's accelerator; ``auto`` takes a GPU when there is one.
        compile_model: whether to compile the model (about a fifth faster on a CPU; needs a C++ compiler).
        progress: whether to draw Lightning's progress bar.
        on_epoch: called with the model, the tokenizer and the number of steps after each epoch.
        devices: how many share the rows of each step.
        strategy: Lightning's name of how they do; ``auto`` takes ``ddp`` where there are several, ``fsdp`` is
            :class:`~smd_research.training.sharded.Sharded`. The checkpoint of one is continued with any other.

    Returns:
        The trained model on the CPU in fp32; None in the processes that Lightning starts beside the first.

    Raises:
        ConfigError: for devices or a strategy that are not here, or that do not share a batch evenly; for
            shards in fp16.
    """
    if run.batch % devices:
        raise ConfigError(f"batch={run.batch} rows cannot be shared evenly by devices={devices}; change one of them")
    sharded = strategy == "fsdp"
    if sharded and run.precision == "16-mixed":
        raise ConfigError("precision=16-mixed: strategy=fsdp scales no loss; take precision=bf16-mixed or 32-true")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer_of(run, folder)
    torch.manual_seed(run.seed)
    fresh = partial(run.architecture.build, tokenizer)
    lm = ShardedLM if sharded else CausalLM
    module = lm(fresh(), Optimisation(run.learning_rate, run.warmup, run.steps))
    if compile_model:
        module.model.compile()

    def after_epoch(step: int) -> None:
        if on_epoch is not None and (model := whole(module, fresh)) is not None:
            on_epoch(model, tokenizer, step)

    stopwatch = Stopwatch()
    checkpoint = ModelCheckpoint(
        folder, filename="last", every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False
    )
    with quietly():
        try:
            trainer = lightning.Trainer(
                accelerator=accelerator,
                devices=devices,
                strategy=Sharded(devices) if sharded else strategy,
                use_distributed_sampler=False,
                precision=run.precision,
                max_epochs=run.steps // run.epoch_steps,
                gradient_clip_val=run.clip,
                reload_dataloaders_every_n_epochs=1,
                check_val_every_n_epoch=5,
                num_sanity_val_steps=0,
                callbacks=[stopwatch, ReportLoss(after_epoch), checkpoint],
                logger=False,
                enable_progress_bar=progress,
                enable_model_summary=False,
                default_root_dir=folder,
            )
        except (ValueError, MisconfigurationException) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"accelerator={accelerator} devices={devices} strategy={strategy}: {reason}") from None
        stream = TextStream(tokenizer, run.register, run.seed, run.row_tokens, run.batch, run.epoch_steps)
        trainer.fit(module, stream, ckpt_path=resumable(folder / "last.ckpt"), weights_only=True)
    model = whole(module, fresh)
    if model is None:
        return None
    return Trained(model.cpu().float().eval(), tokenizer, trainer.global_step, stopwatch.seconds, hardware())
