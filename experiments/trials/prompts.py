"""Attacks on prompts, one by one; where a model is tuned, each row of the upload is read as a prompt that was sent."""

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from attacks.base import PromptAttack
from experiments.trials.guesses import Attempt, scored
from experiments.trials.pursuit import Findings, Kind, Pursuit
from experiments.trials.reading import ReadTexts, public_counts
from experiments.trials.seen import TaskTexts
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import HiddenStates, PromptIds, TuningRows, TuningVectors
from smd_research.core.progress import track
from smd_research.core.seeds import generator
from smd_research.metrics import Estimate

READ_TEXTS = 50
"""Texts tuned on, the first that were uploaded, that an attack reads."""


def pursue(attack: PromptAttack, pursuit: Pursuit) -> Findings:
    """Fit the attack once, then recover every prompt from its view, or texts tuned on from their rows."""
    truth = pursuit.seen.truth
    if truth.texts is not None:
        return _of_tuning(attack, pursuit, truth.texts)
    shown = pursuit.shown(attack)
    attack.fit(pursuit.public)
    attempts = []
    for position, view in enumerate(track(shown.views, "attack")):
        began = time.perf_counter()
        guess = attack.recover(view, generator(pursuit.seed, "attack", truth.prompts[position].id))
        refused = {"refused": float(shown.refused[position])} if shown.refused else {}
        attempts.append(Attempt(guess, time.perf_counter() - began, refused))
    return Findings(scored(attempts, truth.prompts, truth.bundle))


def _of_tuning(attack: PromptAttack, pursuit: Pursuit, texts: TaskTexts) -> Findings:
    """Read the first texts that were uploaded, with the model as it was before it was tuned on them."""
    public = pursuit.public
    attack.fit(replace(public, bundle=public.before or public.bundle))
    said = [np.asarray(text, dtype=np.int64) for text in (*texts.training.ids, *texts.held_out.ids)][:READ_TEXTS]
    told, candidates, began = [], 0, time.perf_counter()
    for number, row in enumerate(track(list(rows(pursuit.seen.views[0], len(said))), "attack")):
        guess = attack.recover(row, generator(pursuit.seed, "attack", f"private-{number}"))
        candidates += guess.spent.candidates
        told.append(np.asarray((*guess.ids, *[-1] * len(said[number]))[: len(said[number])], dtype=np.int64))
    read = ReadTexts.of(said, told, texts)
    found = {
        **read.shares(pursuit.seen.truth.bundle, int(public_counts(pursuit).argmax())),
        "attack_s": Estimate((time.perf_counter() - began) / max(len(said), 1)),
        "attack_candidates": Estimate(candidates / max(len(said), 1)),
    }
    return Findings(
        metrics={name: one for name, one in found.items() if one.n}, items=read.items(pursuit.seen.truth.bundle)
    )


def rows(upload: AdversaryView, count: int) -> Iterator[AdversaryView]:
    """The first rows of an upload, each as if it were a prompt that was sent by itself; nothing was generated."""
    sent = (
        (way, PromptIds(part, 0) if isinstance(message, TuningRows) else HiddenStates(part, 0), len(part))
        for way, message in upload.messages
        if isinstance(message, TuningRows | TuningVectors)
        for part in torch.split(_of_texts(message), message.lengths.tolist())
    )
    for _, (way, message, length) in zip(range(count), sent, strict=False):
        yield replace(upload, messages=((way, message),), length=length)


def _of_texts(message: TuningRows | TuningVectors) -> torch.Tensor:
    """Ids, or vectors, of all texts of a message."""
    return message.ids if isinstance(message, TuningRows) else message.vectors


KIND = Kind(PromptAttack, pursue)
