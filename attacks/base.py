"""What every attack has in common, and the six kinds there are: each has one verb, named for what it looks for."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from smd_research.boundary import AdversaryView
from smd_research.boundary.session import Impostor
from smd_research.core.claim_audit import ClaimAudit
from smd_research.core.errors import NotApplicableError
from smd_research.core.guess import Guess, MappingGuess, WeightGuess
from smd_research.core.observable import Observable
from smd_research.core.wrapper import BARE, Wrapper
from smd_research.data.prompts import TokenSpan
from smd_research.models.bundle import Bundle

Ids = NDArray[np.int64]
P = TypeVar("P")


@dataclass(frozen=True, repr=False)
class Public:
    """What the adversary knows besides its view (Kerckhoffs): everything but the secret and the randomness.

    Attributes:
        bundle: the model as the adversary holds it and its tokenizer: public weights, or, where the weights are the
            secret, the part of them that the untrusted party stores.
        defense: short name of the defense, e.g. ``split``.
        parameters: the defense's public parameters, frozen dataclasses.
        corpus: token ids of an auxiliary corpus of the same kind of text, disjoint from what is attacked; without
            a wrapper, as users write.
        spans: the secrets marked in each document of the corpus; empty where none are marked.
        more: at least so many tokens of such text, as far as the data goes; None: there is no more than the corpus.
        base: the public model that the served one was made from, the same where nothing was changed; None where the
            weights are the secret, so that no ancestor of theirs is known.
        before: the served model as it was before it was tuned on private data; None: it was not tuned.
        wrapper: what a chat template puts around the prompts. Where a text hides a seam of it, its view says so.
    """

    bundle: Bundle
    defense: str
    parameters: tuple[object, ...] = ()
    corpus: tuple[tuple[int, ...], ...] = ()
    spans: tuple[tuple[TokenSpan, ...], ...] = ()
    more: Callable[[int], Sequence[tuple[int, ...]]] | None = None
    base: Bundle | None = None
    before: Bundle | None = None
    wrapper: Wrapper = BARE

    def published(self, kind: type[P]) -> P | None:
        """The public parameters of a kind; None where absence has a meaning of its own (no noise, no secret order)."""
        return next((one for one in self.parameters if isinstance(one, kind)), None)

    def parameters_of(self, kind: type[P]) -> P:
        """The public parameters of a kind.

        Raises:
            NotApplicableError: when the defense publishes none.
        """
        found = self.published(kind)
        if found is None:
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()
            raise NotApplicableError(f"needs public {words}, which the defense does not publish")
        return found

    def documents(self, tokens: int) -> Sequence[tuple[int, ...]]:
        """Public text of at least ``tokens`` tokens, or all there is."""
        return self.corpus if self.more is None else self.more(tokens)


class Attack:
    """An attack by the untrusted party: honest but curious, or, with an ``impostor``, active.

    It never sees the secret or the defense object. When a change may change its numbers, its YAML's ``version`` is
    raised.
    """

    needs: ClassVar[frozenset[Observable]] = frozenset()

    def fit(self, public: Public) -> None:
        """Take in public knowledge; called once before the views of a cell.

        Raises:
            NotApplicableError: when the public parameters or the model rule the attack out.
        """
        self.public = public

    def impostor(self, public: Public) -> Impostor | None:
        """Who takes the honest provider's place, for an active attack; None, as here, for one that only looks on.

        Args:
            public: as ``fit`` takes it in.
        """
        return None


class PromptAttack(Attack, ABC):
    """An attack on prompts, one by one."""

    @abstractmethod
    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        """Reconstruct one prompt from one view."""


@dataclass(frozen=True, repr=False)
class Template:
    """A prompt but for one secret value.

    Attributes:
        ids: token ids ``[n]``, ``-1`` at the tokens of the hidden value.
        start: the value's first token.
        end: the token after its last.
        candidates: token ids of every value of the public register that fits into the gap, each ``[end - start]``,
            distinct; the hidden one is among them, at a place that says nothing.
    """

    ids: tuple[int, ...]
    start: int
    end: int
    candidates: tuple[tuple[int, ...], ...]


class TemplateAttack(Attack, ABC):
    """An attack by an adversary who knows the prompt but for one value, and a list that holds that value.

    Prompts are often filled-in forms ("Patient: ..., born ...: why does the knee hurt?"), and a name, a date or a drug
    comes from a register that anyone can have. The template is side knowledge, declared as such: the runner hands it
    over beside the view, and the attack is asked for nothing but the hidden value.

    Attributes:
        secret: type of the value that is hidden from it, for example ``name``.
        candidates: how long a register it is given.
    """

    secret: str
    candidates: int

    @abstractmethod
    def fill(self, view: AdversaryView, template: Template, rng: np.random.Generator) -> Guess:
        """Name the hidden value.

        Returns:
            A guess that abstains outside the gap, with the candidates' indices in ``choices``, best first.
        """


@dataclass(frozen=True, repr=False, eq=False)
class KnownPairs:
    """Declared side knowledge: cipher ids whose plain ids the adversary knows (planted documents, known templates).

    Attributes:
        cipher: cipher ids ``[m]``.
        plain: the plain id of each ``[m]``.
    """

    cipher: Ids
    plain: Ids

    @classmethod
    def planted(cls, truth: Ids, frequency: NDArray[np.float64], m: int) -> "KnownPairs":
        """What an adversary learns who had a text with the ``m`` most frequent tokens encoded; for the runner.

        Args:
            truth: the plain id of each cipher id ``[V']``, the secret.
            frequency: of each plain id in public text ``[V]``.
            m: how many plain ids; all cipher ids of each (homophones) are told.
        """
        chosen = np.argsort(-frequency, kind="stable")[:m]
        cipher = np.flatnonzero(np.isin(truth, chosen))
        return cls(cipher, truth[cipher])


class MappingAttack(Attack, ABC):
    """An attack that looks for the plain id of every cipher id.

    Attributes:
        known: how many pairs it wants to be told (``KnownPairs``) beside the special ids, which never move; the runner
            hands them to ``solve``.
    """

    needs: ClassVar[frozenset[Observable]] = frozenset({Observable.ENCODED_IDS})
    known: int = 0

    @abstractmethod
    def solve(
        self, views: Sequence[AdversaryView], rng: np.random.Generator, known: KnownPairs | None = None
    ) -> MappingGuess:
        """Reconstruct the substitution from the views of all requests and what is public.

        Raises:
            NotApplicableError: when the attack finds that it cannot be run here.
        """

    @property
    def ciphers(self) -> int:
        """Number of cipher ids ``V'``, at least that of plain ids."""
        return len(self.public.bundle.embedding)

    @property
    def plains(self) -> int:
        """Number of plain ids ``V``."""
        return len((self.public.base or self.public.bundle).embedding)

    def anchors(self, known: KnownPairs | None = None) -> KnownPairs:
        """Special ids, which map to themselves, and the pairs that were told."""
        special = np.array(sorted(i for i in self.public.bundle.special_ids if i < self.ciphers), dtype=np.int64)
        if known is None:
            return KnownPairs(special, special)
        told = ~np.isin(known.cipher, special)
        return KnownPairs(np.append(special, known.cipher[told]), np.append(special, known.plain[told]))


class AttributeAttack(Attack, ABC):
    """An attack that looks for what a private text is about, given that of a few.

    Attributes:
        known: texts whose attribute it is told.
    """

    needs: ClassVar[frozenset[Observable]] = frozenset({Observable.ENCODED_IDS})
    known: int

    @abstractmethod
    def probe(self, records: Sequence[Ids], told: NDArray[np.int64]) -> NDArray[np.int64]:
        """The attribute of every record.

        Args:
            records: cipher ids of each.
            told: the attribute of each record that is known, ``-1`` where it is to be found ``[n]``.

        Returns:
            Attributes ``[n]``; those told stay.

        Raises:
            NotApplicableError: when fewer than two attributes are among those told.
        """


class GuaranteeAttack(Attack, ABC):
    """An attack on what a defense promises: are there inputs that its outputs tell apart better than that?

    It plays the public mechanism, as published, against itself: no private text is looked for, and none is needed.
    """

    @abstractmethod
    def refute(self, rng: np.random.Generator) -> Sequence[ClaimAudit]:
        """Audit every claim of the mechanism.

        Raises:
            NotApplicableError: where nothing is published that claims anything.
        """


class WeightAttack(Attack, ABC):
    """An attack on the model by the device that stores and runs the exposed part of its weights.

    The prompt is no secret here. ``Public.bundle`` is the exposed part, as a model; the views add what passed while
    prompts were served.
    """

    needs: ClassVar[frozenset[Observable]] = frozenset({Observable.EXPOSED_WEIGHTS})

    settles: ClassVar[str | None] = None
    """Metric that the attack searches for at seed 0 and takes from that record (``settle``) at other seeds."""

    def settle(self, value: float) -> None:
        """Take what ``settles`` names as it was found before, instead of searching."""

    def control(self) -> Mapping[str, object] | None:
        """Options of the attack ``from_scratch`` that make this one's control; None, as here, where there is none."""
        return None

    @property
    def relative(self) -> Bundle | None:
        """A public model from which the secret one descends, where the attack knows one; asked for after ``fit``."""
        return None

    @abstractmethod
    def restore(self, views: Sequence[AdversaryView], rng: np.random.Generator) -> WeightGuess:
        """Reconstruct the weights from the views of all requests and what is public."""
