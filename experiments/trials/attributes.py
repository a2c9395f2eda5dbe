"""Attacks on what a private text is about, given that of a few."""

import time

import numpy as np

from attacks.base import AttributeAttack
from attacks.cryptanalysis.ciphertext import ciphertext
from experiments.trials.pursuit import Findings, Kind, Pursuit
from experiments.trials.seen import SERVE
from smd_research import metrics
from smd_research.core.errors import NotApplicableError
from smd_research.core.seeds import generator
from smd_research.metrics import Estimate


def pursue(attack: AttributeAttack, pursuit: Pursuit) -> Findings:
    """How well the class of the evaluation texts is told from their code, given that of some texts tuned on.

    Raises:
        NotApplicableError: for a task without classes.
    """
    attack.fit(pursuit.public)
    texts, views = pursuit.seen.truth.texts, pursuit.seen.views
    if texts is None or not texts.task.labels:
        raise NotApplicableError("names the class of a text: this task has none")
    began = time.perf_counter()
    sent, asked = ciphertext([views[0]])[: len(texts.training.ids)], ciphertext([views[-1]])
    chosen = generator(pursuit.seed, "attack", "probe").permutation(len(sent))[: attack.known]
    told = np.array([texts.training.labels[number] for number in chosen] + [-1] * len(asked), dtype=np.int64)
    named = attack.probe([*(sent[number] for number in chosen), *asked], told)[len(chosen) :]
    truth = np.array(texts.evaluation.labels)
    return Findings(
        metrics={
            "attribute_accuracy": metrics.summarise("attribute_accuracy", (named == truth).tolist()),
            "attribute_chance": Estimate(float(np.bincount(truth).max() / len(truth))),
            "attack_s": Estimate(time.perf_counter() - began),
        }
    )


KIND = Kind(AttributeAttack, pursue, {SERVE: "names an attribute of records: it needs a task whose records have one"})
