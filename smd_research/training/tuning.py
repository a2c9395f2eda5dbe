"""Tuning a model on private texts: resumed after a kill with equal results, the best state by held-out texts kept.

With DP-SGD the last state is kept: held-out texts then decide nothing, so that nothing of them needs a promise.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from transformers import PreTrainedModel

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import sequence
from smd_research.data.texts import Readable, Texts
from smd_research.training.buckets import PlannedTexts, in_order, planned, sampled
from smd_research.training.causal_lm import CausalLM, Optimisation
from smd_research.training.checkpoints import load, resumable
from smd_research.training.classifier import Classifier
from smd_research.training.flops import training_flops
from smd_research.training.loop import Stopwatch
from smd_research.training.methods import Machine, Private, Tuning
from smd_research.training.private import PrivateLearner, SampledTexts, text_losses
from smd_research.training.quiet import quietly

OnStep = Callable[[int, int], None]
"""Told the number of the step that was done, and of all."""


@dataclass(frozen=True)
class TuningOutcome:
    """What a tuning run took.

    Attributes:
        steps: that were done.
        seconds: of training, all parts of a resumed run together.
        loss: smallest held-out loss in nats, that of the state that was kept.
        flops: of all steps, by :func:`~smd_research.training.flops.training_flops`.
    """

    steps: int
    seconds: float
    loss: float
    flops: float


@dataclass(frozen=True, repr=False)
class Tuned:
    """A tuned model and its head.

    Attributes:
        model: a stock model in evaluation mode.
        module: what classifies with it, or predicts the next token.
        outcome: what it took.
    """

    model: PreTrainedModel
    module: Classifier | CausalLM
    outcome: TuningOutcome


class _Patience(EarlyStopping):  # type: ignore[misc]  # Lightning is untyped here
    """Early stopping that a resumed run, killed after it had stopped, does not forget."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class _Steps(Callback):  # type: ignore[misc]  # Lightning is untyped here
    """Tells of every step and held-out batch, and seeds each step, so that dropout is the same after a resume."""

    def __init__(self, on_step: OnStep | None, steps: int, seed: int) -> None:
        self._on_step, self._steps, self._seed = on_step, steps, seed

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        torch.manual_seed(torch_seed(self._seed, "step", trainer.global_step))

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if self._on_step:
            self._on_step(trainer.global_step, self._steps)

    on_validation_batch_end = on_train_batch_end


def torch_seed(seed: int, *names: str | int) -> int:
    """A seed for torch's generator, for a purpose."""
    return int(sequence(seed, *names).generate_state(1, "uint64")[0] >> 1)


def tune(
    start: PreTrainedModel,
    training: Readable,
    held_out: Readable,
    tuning: Tuning,
    *,
    classes: int,
    words: Tensor,
    seed: int,
    folder: Path,
    machine: Machine | None = None,
    on_step: OnStep | None = None,
) -> Tuned:
    """Tune a copy of a model, or continue the run whose checkpoint lies in ``folder``.

    Next-token tuning packs texts into rows; with DP-SGD, whose promise is for a text, each is a row of its own.

    Args:
        start: the model; never modified.
        training: texts to train on, with labels unless the next token is tuned; vectors have classes.
        held_out: texts that decide which state is best, and when to stop.
        tuning: how.
        classes: number of classes; 0 tunes the next token.
        words: token id that stands for each class, or empty.
        seed: of initialisation, order and dropout; torch's global generator is left as it was.
        folder: where the checkpoints of the run live.
        machine: where it trains; None: on one CPU.
        on_step: told of every step.

    Raises:
        ConfigError: without a text to train on or to hold out, or anything to train; with DP-SGD see ``Private``.
        UnsupportedModelError: for a model whose gradients of single texts DP-SGD cannot tell.
    """
    if not classes:
        training, held_out = _of_ids(training), _of_ids(held_out)
        if not isinstance(tuning, Private):
            longest = min(int(max(training.lengths, default=0)), held_out.tokens)
            training, held_out = (texts.packed(longest) if longest > 1 else Texts(()) for texts in (training, held_out))
    if not len(training) or not len(held_out):
        raise ConfigError("tuning needs a text to train on and one held out: see task.train= and task.validation=")
    folder.mkdir(parents=True, exist_ok=True)
    with quietly(), torch.random.fork_rng():
        torch.manual_seed(torch_seed(seed, "head"))
        model = copy.deepcopy(start).float().train()
        restore = tuning.adapt(model)
        module = module_of(model, tuning, classes, words)
        if not any(parameter.requires_grad for parameter in module.parameters()):
            raise ConfigError("tuning of the head alone needs a task with classes: nothing else is trained")
        order, machine = torch_seed(seed, "order"), machine or Machine()
        if isinstance(tuning, Private):
            plan = sampled(len(training), tuning.batch / len(training), tuning.steps, order)
            outcome = _fit_private(module, training, held_out, plan, tuning, seed, folder, machine, on_step)
        else:
            plan = planned(training.lengths, tuning.batch, tuning.steps, order)
            data = PlannedTexts(training, held_out, plan, tuning.batch, tuning.checks)
            outcome = _fit(module, data, tuning, seed, folder, machine, on_step)
    tokens = sum(int(training.lengths[rows].sum()) for rows in plan[: outcome.steps])
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad and p.ndim > 1)
    outcome = replace(outcome, flops=training_flops(model, trained, tokens))
    module.model = restore().eval().requires_grad_(False)
    return Tuned(module.model, module.eval(), outcome)


def _of_ids(texts: Readable) -> Texts:
    """Texts whose next tokens can be predicted.

    Raises:
        ConfigError: for vectors, which name no token.
    """
    if not isinstance(texts, Texts):
        raise ConfigError("the next token cannot be tuned on vectors: they name no token; use a task with classes")
    return texts


def module_of(model: PreTrainedModel, tuning: Tuning, classes: int, words: Tensor) -> Classifier | CausalLM:
    """Builds what is trained: a classifier, or, without classes, a predictor of the next token.

    A new head is drawn from torch's own generator.
    """
    warmup = max(1, round(tuning.warmup * tuning.steps))
    optimisation = Optimisation(tuning.learning_rate, warmup, tuning.steps, weight_decay=tuning.weight_decay)
    head = model.get_output_embeddings()
    if head is None and (len(words) or not classes):
        raise ConfigError("the provider holds no output head: use tuning.head=linear, and a task with classes")
    if not classes:
        return CausalLM(model, optimisation)
    if head is not None and not len(words) and head.weight is not model.get_input_embeddings().weight:
        head.requires_grad_(False)  # an untied output matrix has no part in it
    return Classifier(model, classes, tuning.pooling, words, optimisation)


def _fit(
    module: Classifier | CausalLM,
    data: PlannedTexts,
    tuning: Tuning,
    seed: int,
    folder: Path,
    machine: Machine,
    on_step: OnStep | None,
) -> TuningOutcome:
    """Train in place and leave the module in its best state."""
    best = ModelCheckpoint(
        folder, filename="best", monitor="validation_loss", save_weights_only=True, enable_version_counter=False
    )
    patience = [] if tuning.patience is None else [_Patience("validation_loss", patience=tuning.patience)]
    steps, seconds = _run(module, data, tuning, folder, machine, [_Steps(on_step, tuning.steps, seed), *patience, best])
    module.load_state_dict(load(folder / "best.ckpt")["state_dict"])
    return TuningOutcome(steps, seconds, float(best.best_model_score), 0.0)


def _fit_private(
    module: Classifier | CausalLM,
    training: Readable,
    held_out: Readable,
    plan: Sequence[NDArray[np.int64]],
    tuning: Private,
    seed: int,
    folder: Path,
    machine: Machine,
    on_step: OnStep | None,
) -> TuningOutcome:
    """Train in place with DP-SGD and leave the module in its last state.

    Raises:
        ConfigError: for more devices than one: each would sample and add noise by itself.
    """
    if machine.devices != 1:
        raise ConfigError(f"trainer.devices={machine.devices}: DP-SGD trains on one device, take trainer.devices=1")
    learner = PrivateLearner(module, tuning.spending(len(training)), tuning.clip, tuning.batch)
    data = SampledTexts(training, held_out, plan, tuning.batch, tuning.checks)
    data.at_once = learner.at_once
    steps, seconds = _run(learner, data, tuning, folder, machine, [_Steps(on_step, tuning.steps, seed)])
    learner.release()
    return TuningOutcome(steps, seconds, _held_out_loss(module.eval(), held_out, tuning.batch), 0.0)


def _run(
    learner: lightning.LightningModule,
    data: PlannedTexts,
    tuning: Tuning,
    folder: Path,
    machine: Machine,
    callbacks: Sequence[Callback],
) -> tuple[int, float]:
    """Train in place, or go on from the last checkpoint; steps done and seconds, all parts together."""
    stopwatch = Stopwatch()
    last = ModelCheckpoint(
        folder, filename="last", every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False
    )
    trainer = _trainer(tuning, machine, folder, [stopwatch, *callbacks, last])
    device = next(learner.parameters()).device
    trainer.fit(learner, data, ckpt_path=resumable(folder / "last.ckpt"), weights_only=True)
    learner.to(device)
    return trainer.global_step, stopwatch.seconds


@torch.inference_mode()
def _held_out_loss(module: Classifier | CausalLM, texts: Readable, batch: int) -> float:
    """Mean loss of a text in nats."""
    device = next(module.parameters()).device
    losses = [
        text_losses(module, (ids.to(device), lengths.to(device), labels.to(device)))
        for ids, lengths, labels in map(texts.batch, in_order(texts.lengths, batch))
    ]
    return float(torch.cat(losses).mean())


def _trainer(tuning: Tuning, machine: Machine, folder: Path, callbacks: list[Callback]) -> lightning.Trainer:
    """Lightning's trainer.

    Raises:
        ConfigError: for a machine, strategy or precision that it does not know or that is not here; for several
            devices, since Lightning would start the whole command again for each.
    """
    try:
        trainer = lightning.Trainer(
            accelerator=machine.accelerator,
            devices=machine.devices,
            strategy=machine.strategy,
            precision=tuning.precision,
            max_epochs=tuning.checks,
            # DP-SGD clips each text's gradient itself, and looks at no held-out text.
            gradient_clip_val=None if isinstance(tuning, Private) else tuning.clip,
            limit_val_batches=0 if isinstance(tuning, Private) else 1.0,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            callbacks=callbacks,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
    except (ValueError, TypeError, MisconfigurationException) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"trainer: {reason} (see trainer.accelerator, devices, strategy, tuning.precision)") from None
    if trainer.num_devices > 1:
        raise ConfigError(f"trainer.devices={machine.devices}: a cell trains on one device, take trainer.devices=1")
    return trainer
