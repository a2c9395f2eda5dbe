"""Attacks on private tuning: on the substitution that all texts share, or on what a record is about."""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attacks.attributes.attribute_probe import AttributeProbe
from attacks.base import Attack, KnownPairs, MappingAttack, Public
from attacks.cryptanalysis.ciphertext import ciphertext
from experiments.trials.attacking import check
from experiments.trials.tuning_scores import Seen, mapping_scores
from smd_research import metrics
from smd_research.boundary import AdversaryView
from smd_research.core.errors import NotApplicableError
from smd_research.core.guess import MappingGuess
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.defenses.tunable import ClientCode
from smd_research.metrics import Estimate
from smd_research.models.bundle import Bundle
from smd_research.records import Item

Found = tuple[dict[str, Estimate], list[Item]]
"""Metrics by name, and the texts that a record shows."""


def admitted(attack: Attack, shows: frozenset[Observable]) -> None:
    """Refuse an attack that cannot read an upload of coded rows, before anything runs.

    Raises:
        NotApplicableError: naming what is missing.
    """
    check(attack, shows)
    if not isinstance(attack, MappingAttack | AttributeProbe):
        raise NotApplicableError("reads prompts one by one: private tuning shows coded rows, see attacks.keyed")


def attacked(
    attack: Attack, public: Public, views: Sequence[AdversaryView], code: ClientCode, seen: Seen, seed: int
) -> Found:
    """Run an admitted attack and score it.

    Args:
        attack: the attack.
        public: what is public.
        views: of the upload, of tuning, of inference.
        code: the client's, for the truth.
        seen: the texts in plain, for the truth.
        seed: of the attack's randomness.

    Raises:
        NotApplicableError: when the attack finds that it cannot be run here.
    """
    attack.fit(public)
    if isinstance(attack, AttributeProbe):
        return probed(attack, views, seen, seed), []
    assert isinstance(attack, MappingAttack)
    bundle = public.base
    assert bundle is not None
    began, truth = time.perf_counter(), code.plain_ids(bundle.geometry.vocab)
    guess = solved(attack, public, bundle, views, truth, seed)
    return mapping_scores(guess, truth, seen.uploaded, views[0], bundle, time.perf_counter() - began)


def solved(
    attack: MappingAttack,
    public: Public,
    bundle: Bundle,
    views: Sequence[AdversaryView],
    truth: NDArray[np.int64],
    seed: int,
) -> MappingGuess:
    """The attack's mapping; it is told as many pairs as it declares to know, of the most frequent public tokens."""
    known = None
    if attack.known:
        counts = np.bincount(
            np.concatenate([np.asarray(text) for text in public.corpus]), minlength=bundle.geometry.vocab
        )
        known = KnownPairs.planted(truth, counts.astype(np.float64), attack.known)
    return attack.solve(views, generator(seed, "attack", "mapping"), known)


def probed(attack: AttributeProbe, views: Sequence[AdversaryView], seen: Seen, seed: int) -> dict[str, Estimate]:
    """How well the class of the evaluation texts is told from their code, given that of some texts tuned on.

    Raises:
        NotApplicableError: for a task without classes.
    """
    if not seen.task.labels:
        raise NotApplicableError("names the class of a text: this task has none")
    began = time.perf_counter()
    sent, asked = ciphertext([views[0]])[: len(seen.training.ids)], ciphertext([views[-1]])
    chosen = generator(seed, "attack", "probe").permutation(len(sent))[: attack.known]
    told = np.array([seen.training.labels[number] for number in chosen] + [-1] * len(asked), dtype=np.int64)
    named = attack.probe([*(sent[number] for number in chosen), *asked], told)[len(chosen) :]
    truth = np.array(seen.evaluation.labels)
    return {
        "attribute_accuracy": metrics.summarise("attribute_accuracy", (named == truth).tolist()),
        "attribute_chance": Estimate(float(np.bincount(truth).max() / len(truth))),
        "attack_s": Estimate(time.perf_counter() - began),
    }
