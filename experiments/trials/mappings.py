"""Attacks on a secret substitution of token ids: one mapping from all views, then everything is read through it."""

import time
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from attacks.base import KnownPairs, MappingAttack
from attacks.cryptanalysis.ciphertext import public_pairs, read
from experiments.trials.guesses import Attempt, scored
from experiments.trials.items import token_texts
from experiments.trials.pursuit import Findings, Kind, Pursuit
from experiments.trials.seen import TaskTexts
from smd_research import metrics
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import TuningRows
from smd_research.core.guess import MappingGuess
from smd_research.core.seeds import generator
from smd_research.defenses.tunable import TunablePrepared
from smd_research.metrics import Estimate
from smd_research.models.bundle import Bundle
from smd_research.records import Item

SHOWN_TEXTS = 20
"""Texts tuned on that a record shows as the attack read them."""


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


def public_counts(pursuit: Pursuit, special: bool = False) -> NDArray[np.float64]:
    """How often each token stands in public text ``[V]``; special ones count only where asked for."""
    bundle = pursuit.seen.truth.bundle
    tokens = [token for text in pursuit.public.corpus for token in text]
    counts = np.bincount(np.array(tokens, dtype=np.int64), minlength=bundle.geometry.vocab).astype(np.float64)
    if not special:
        counts[sorted(bundle.special_ids)] = 0
    return counts


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
    special, kept = (np.isin(ids, sorted(bundle.special_ids)) for ids in (truth, said))
    rows = upload.of(TuningRows)
    cipher = np.concatenate([row.ids.numpy() for row in rows]).astype(np.int64)
    told = guess.mapping[cipher]
    ends = list(accumulate((int(n) for row in rows for n in row.lengths), initial=0))
    counts = _by_text(~kept, ends)
    spans = [
        metrics.span_exact(said[first:last].tolist(), told[first:last].tolist(), secrets)
        for (first, last), secrets in zip(pairwise(ends), texts.uploaded_spans, strict=False)
    ]
    found = {
        "token_recovery": metrics.running_share(_by_text((told == said) & ~kept, ends), counts),
        "control_token_recovery": metrics.running_share(_by_text((said == frequent) & ~kept, ends), counts),
        "span_exact": metrics.summarise("span_exact", spans),
        "id_recovery": metrics.summarise("id_recovery", (guess.mapping == truth)[~special].tolist()),
        "id_chance": Estimate(1 / max(int((~special).sum()), 1)),
        "attack_s": Estimate(seconds),
        "attack_candidates": Estimate(float(guess.spent.candidates)),
        **{name: Estimate(float(value)) for name, value in guess.facts.items()},
    }
    own = {"certified": guess.certified, "readable": guess.readable}
    found |= {name: Estimate(float(value)) for name, value in own.items() if value is not None}
    shown = enumerate(pairwise(ends[: SHOWN_TEXTS + 1]))
    items = [_item(n, said[first:last], told[first:last], texts, bundle) for n, (first, last) in shown]
    return Findings(metrics={name: one for name, one in found.items() if one.n}, items=tuple(items))


def _by_text(hits: NDArray[np.bool_], ends: Sequence[int]) -> list[int]:
    """How many of the tokens of each text hit."""
    counted: list[int] = np.add.reduceat(hits.astype(np.int64), ends[:-1]).tolist()
    return counted


def _item(number: int, truth: NDArray[np.int64], guess: NDArray[np.int64], texts: TaskTexts, bundle: Bundle) -> Item:
    plain, told = truth.tolist(), guess.tolist()
    shares: Sequence[str] = [text or "" for text in token_texts(plain, bundle)]
    spans = texts.uploaded_spans[number] if number < len(texts.uploaded_spans) else ()
    return Item(f"private-{number}", {}, shares, token_texts(told, bundle), spans, plain, told)


KIND = Kind(MappingAttack, pursue)
