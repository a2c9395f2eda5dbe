"""Attacks on a secret substitution of token ids: one mapping from all views, then everything is read through it."""

import time
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from attacks.base import KnownPairs, MappingAttack
from attacks.cryptanalysis.ciphertext import public_pairs, read
from experiments.trials.guesses import Attempt, scored
from experiments.trials.pursuit import Findings, Kind, Pursuit
from experiments.trials.reading import ReadTexts, public_counts
from experiments.trials.seen import TaskTexts
from smd_research import metrics
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import TuningRows
from smd_research.core.guess import MappingGuess
from smd_research.core.seeds import generator
from smd_research.defenses.tunable import TunablePrepared
from smd_research.metrics import Estimate
from smd_research.models.bundle import Bundle


def pursue(attack: MappingAttack, pursuit: Pursuit) -> Findings:
    """Solve the substitution from all views together, and read what was sent through it: prompts, or texts tuned on."""
    truth, views = pursuit.seen.truth, pursuit.shown(attack).views
    attack.fit(pursuit.public)
    began = time.perf_counter()
    prepared = pursuit.seen.prepared
    assert isinstance(prepared, TunablePrepared)  # encoded ids are shown by what has a code
    plain_ids = prepared.code.plain_ids(truth.bundle.geometry.vocab)
    known = told(attack, pursuit, plain_ids, views)
    found = attack.solve(views, generator(pursuit.seed, "attack", "mapping"), known)
    if truth.texts is not None:
        seconds = time.perf_counter() - began
        frequent = int(public_counts(pursuit).argmax())
        return running_text(found, plain_ids, truth.texts, views[0], truth.bundle, frequent, seconds)
    guesses = [read(view, found) for view in views]
    seconds = (time.perf_counter() - began) / max(len(views), 1)  # shared out evenly
    return Findings(scored([Attempt(guess, seconds) for guess in guesses], truth.prompts, truth.bundle))


def told(
    attack: MappingAttack, pursuit: Pursuit, plain_ids: NDArray[np.int64], views: Sequence[AdversaryView]
) -> KnownPairs | None:
    """As many pairs as the attack declares to know, of the most frequent public tokens, and a chat template's.

    None where there are none.
    """
    pairs = public_pairs(views)
    if attack.known:
        planted = KnownPairs.planted(plain_ids, public_counts(pursuit, special=True), attack.known)
        pairs |= dict(zip(planted.cipher.tolist(), planted.plain.tolist(), strict=True))
    cipher = np.array(sorted(pairs), dtype=np.int64)
    return KnownPairs(cipher, np.array([pairs[one] for one in cipher.tolist()], dtype=np.int64)) if pairs else None


def running_text(
    guess: MappingGuess,
    truth: NDArray[np.int64],
    texts: TaskTexts,
    upload: AdversaryView,
    bundle: Bundle,
    frequent: int,
    seconds: float,
) -> Findings:
    """How much of the private texts and of the vocabulary a mapping gives away, and the first texts as it reads them.

    A token counts where the mapping reads what the user wrote: where noise replaced it, even the true mapping fails.

    Args:
        guess: the attack's.
        truth: the plain id of each cipher id ``[V']``.
        texts: what the user wrote.
        upload: what was seen of the upload.
        bundle: for its tokenizer and special ids.
        frequent: the most frequent token of public text: who reads it everywhere has learned nothing.
        seconds: that the attack took.
    """
    said = texts.uploaded
    special = np.isin(truth, sorted(bundle.special_ids))
    rows = upload.of(TuningRows)
    told = guess.mapping[np.concatenate([row.ids.numpy() for row in rows]).astype(np.int64)]
    ends = list(accumulate((int(n) for row in rows for n in row.lengths), initial=0))
    parts = list(pairwise(ends))
    read = ReadTexts.of([said[first:last] for first, last in parts], [told[first:last] for first, last in parts], texts)
    found = {
        **read.shares(bundle, frequent),
        "id_recovery": metrics.summarise("id_recovery", (guess.mapping == truth)[~special].tolist()),
        "id_chance": Estimate(1 / max(int((~special).sum()), 1)),
        "attack_s": Estimate(seconds),
        "attack_candidates": Estimate(float(guess.spent.candidates)),
        **{name: Estimate(float(value)) for name, value in guess.facts.items()},
    }
    own = {"certified": guess.certified, "readable": guess.readable}
    found |= {name: Estimate(float(value)) for name, value in own.items() if value is not None}
    return Findings(metrics={name: one for name, one in found.items() if one.n}, items=read.items(bundle))


KIND = Kind(MappingAttack, pursue)
