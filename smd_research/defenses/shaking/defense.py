"""Keyed shaking as a defense (CypherTalk, arXiv 2403.07283): private tuning and inference under a key.

The sections of the paper that define it were out of reach: key, operators and training are reconstructed from
summaries, and every number is our own. The substitution is deterministic and the noise on a row is fixed: no guarantee
is claimed for the key. With fresh noise for every occurrence the word mechanism's own is, and the key adds nothing.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from smd_research.core.errors import ConfigError
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.defenses.base import NO_TEXT, PublicText
from smd_research.defenses.shaking.code import KeyedCode
from smd_research.defenses.shaking.deployment import HEADLESS, SHOWS, TUNING_SHOWS, KeyedPrepared
from smd_research.defenses.shaking.fresh import FreshNoise
from smd_research.defenses.shaking.implant import HEADS, Head, Recovery, implanted
from smd_research.defenses.tunable import Tunable
from smd_research.mechanisms.privacy.survival import token_frequencies
from smd_research.mechanisms.shaking import OPERATORS, Key, Substitution
from smd_research.mechanisms.shaking.key import SECRET_BYTES
from smd_research.mechanisms.shaking.operators import check_vertical
from smd_research.mechanisms.shaking.parameters import RecoveryParameters, ShakingParameters
from smd_research.models.bundle import Bundle
from smd_research.models.tables import output_head
from smd_research.training.recovery import LossWeights, Precision


class Shaking(Tunable):
    """Keyed shaking.

    Args:
        secret: 32 hexadecimal digits, which the record of a run then holds; None: from the seed of the run.
        key_file: a key that was saved (``Key.save``); its options must be those named here.
        fraction: share of the ids that are not special that is permuted, 0 to 1.
        homophones: cipher ids of each frequent id; 1 has none.
        frequent: how many of the most frequent ids of public text have homophones.
        addv: strength of a vertical operator (``mechanisms.shaking``), 0 for none; they are applied in this order.
        inflate: the same, as for the next four.
        tilt: the same.
        dx_fixp: the same.
        gaussian: the same.
        laplace: the same.
        head: what becomes of the output head: ``shaken``, ``linear``, ``permuted`` or ``drop``; see ``implant.shaken``.
        labels: whether the labels of tuning and classification are permuted.
        fresh_epsilon: every occurrence of a token that is not special is replaced, before it is coded, by a draw of the
            word mechanism with this epsilon for a token and unit of distance (``fresh.FreshNoise``); None replaces
            none. It falls on texts to tune on, texts to classify and prompts. Recovery training reads public text as
            it is: it undoes what the key did to the tables, against a teacher that reads the same text; what the noise
            does to the private task, private tuning sees for itself.
        awareness_steps: see ``implant.Recovery``, as for the next four and the last.
        function_steps: of function recovery.
        batch: rows of a step.
        row_tokens: tokens of a row.
        learning_rate: peak.
        hidden_weight: of the loss on hidden states in awareness recovery.
        logit_weight: of the divergence from the teacher in awareness recovery.
        text_weight: of the loss on the text itself in awareness recovery.
        freeze_tables: whether recovery leaves the shaken tables as they are.
        precision: of the arithmetic of recovery training, Lightning's name; None: ``32-true``.

    Raises:
        ConfigError: for a value out of range, or options that do not go together.
    """

    def __init__(
        self,
        secret: str | None = None,
        key_file: str | None = None,
        fraction: float = 1.0,
        homophones: int = 1,
        frequent: int = 64,
        addv: float = 0.0,
        inflate: float = 0.5,
        tilt: float = 0.5,
        dx_fixp: float = 0.0,
        gaussian: float = 0.5,
        laplace: float = 0.0,
        head: Head = "shaken",
        labels: bool = False,
        fresh_epsilon: float | None = None,
        awareness_steps: int = 300,
        function_steps: int = 100,
        batch: int = 16,
        row_tokens: int = 64,
        learning_rate: float = 5e-4,
        hidden_weight: float = 1.0,
        logit_weight: float = 1.0,
        text_weight: float = 0.5,
        freeze_tables: bool = True,
        precision: Precision | None = None,
    ) -> None:
        if head not in HEADS:
            raise ConfigError(f"defense.head={head} is unknown: use one of {', '.join(HEADS)}")
        if secret is not None and key_file is not None:
            raise ConfigError("defense.secret and defense.key_file both give a key: keep one")
        if frequent < 0:
            raise ConfigError(f"defense.frequent={frequent} is out of range: it counts from 0")
        if fresh_epsilon is not None and not 0 < fresh_epsilon < math.inf:
            raise ConfigError(f"defense.fresh_epsilon={fresh_epsilon:g} is out of range: above 0 and finite, or null")
        strengths = dict(zip(OPERATORS, map(float, (addv, inflate, tilt, dx_fixp, gaussian, laplace)), strict=True))
        check_vertical(tuple(strengths.items()))
        self.vertical = tuple((name, strength) for name, strength in strengths.items() if strength)
        self.head: Head = head
        self._secret = None if secret is None else _secret_of(secret)
        self._key_file = None if key_file is None else Path(key_file).expanduser()
        self._frequent = frequent
        self._fresh_epsilon = fresh_epsilon
        self._options = {"fraction": float(fraction), "homophones": homophones, "labels": labels}
        weights = LossWeights(hidden_weight, logit_weight, text_weight)
        self.recovery = Recovery(
            awareness_steps, function_steps, batch, row_tokens, learning_rate, weights, freeze_tables, precision
        )
        self._strengths = strengths

    @property
    def shows(self) -> frozenset[Observable]:
        """What the untrusted party sees of prompts that are served.

        Raises:
            ConfigError: where the provider has nothing to generate with.
        """
        if self.head == "drop":
            raise ConfigError(HEADLESS)
        return SHOWS

    @property
    def tuning_shows(self) -> frozenset[Observable]:
        return TUNING_SHOWS

    def key(self, bundle: Bundle, seed: int, corpus: Sequence[Sequence[int]] = ()) -> Key:
        """The key for a model: loaded, or drawn from the secret or the seed.

        Args:
            bundle: the model.
            seed: of the secret, unless it is given.
            corpus: token ids of public text, to count frequent tokens in.

        Raises:
            ConfigError: for a key file that cannot be used, or homophones without public text to count.
            UnsupportedModelError: for a model without a separable embedding.
        """
        if self._key_file is not None:
            key = Key.load(self._key_file)
            key.check(bundle)
            for name, value in {**self._options, "vertical": self.vertical}.items():
                if getattr(key, name) != value:
                    found = getattr(key, name)
                    raise ConfigError(f"the key in {self._key_file} has {name}={found}, the defense {value}: set it so")
            return key
        secret = self._secret or generator(seed, "shaking", "secret").bytes(SECRET_BYTES)
        return Key.draw(
            bundle,
            vertical=self.vertical,
            frequent=self._most_frequent(bundle, corpus),
            secret=secret,
            **self._options,  # type: ignore[arg-type]
        )

    def _most_frequent(self, bundle: Bundle, corpus: Sequence[Sequence[int]]) -> tuple[int, ...]:
        if self._options["homophones"] == 1:
            return ()
        counts = token_frequencies(corpus, bundle.geometry.vocab)
        counts[sorted(bundle.special_ids)] = 0
        order = np.argsort(-counts, kind="stable")[: self._frequent]
        found = tuple(sorted(int(token) for token in order if counts[token]))
        if not found:
            raise ConfigError("defense.homophones needs public text to count frequent tokens in, and there is none")
        return found

    def prepare(
        self, bundle: Bundle, public_text: PublicText = NO_TEXT, seed: int = 0, folder: Path | None = None
    ) -> KeyedPrepared:
        """Draw the key and put it into the model.

        Args:
            bundle: the public model.
            public_text: for recovery training, ``task`` for function recovery; without it the corpus serves.
            seed: of the key, unless it is given, and of the training.
            folder: keeps checkpoints and the result; None keeps nothing on disk.

        Raises:
            ConfigError: see ``key`` and ``implant.implanted``.
            UnsupportedModelError: for a model without a separable embedding.
        """
        began, corpus = time.perf_counter(), public_text.corpus
        key = self.key(bundle, seed, corpus)
        output_head(bundle)  # refuses a model without one before anything is trained
        substitution = Substitution.of(key, bundle.special_ids)
        epsilon = self._fresh_epsilon
        fresh = None if epsilon is None else FreshNoise.of(key, bundle, epsilon)
        code = KeyedCode(
            substitution,
            key.stream("homophones") if key.homophones > 1 else None,
            key.stream("classes") if key.labels else None,
            fresh=fresh,
        )
        drawn = time.perf_counter()
        texts = corpus, public_text.task or corpus
        served, spent = implanted(bundle, key, self.head, self.recovery, *texts, seed, folder)
        shaking = time.perf_counter() - drawn
        return KeyedPrepared(
            bundle=bundle,
            public=served,
            base=bundle,
            parameters=self._parameters(substitution.size),
            guarantee=fresh.guarantee() if fresh else None,
            shows=SHOWS,
            tuning_shows=self.tuning_shows,
            seed=seed,
            code=code,
            seconds={"key": drawn - began, "implant": max(shaking, spent.seconds)},
            flops={"key": 0.0, "implant": spent.flops},
        )

    def _parameters(self, cipher_ids: int) -> tuple[object, ...]:
        options: dict[str, Any] = {**self._options, **self._strengths}
        shaking = ShakingParameters(
            frequent=self._frequent,
            head=self.head,
            fresh_epsilon=self._fresh_epsilon,
            cipher_ids=cipher_ids,
            **options,
        )
        training = {name: value for name, value in asdict(self.recovery).items() if name != "weights"}
        weights = {f"{name}_weight": value for name, value in asdict(self.recovery.weights).items()}
        return shaking, RecoveryParameters(**training, **weights)


def _secret_of(text: str) -> bytes:
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise ConfigError(f"defense.secret is not {2 * SECRET_BYTES} hexadecimal digits")
    return secret
