"""Private tuning and inference: a provider that tunes its model on the rows it is sent, and a client that codes them.

One pair of parties serves every defense of this kind: they differ in the model that the tuning starts from and in the
client's code (:class:`ClientCode`), which is the identity where nothing protects the rows. A code may send vectors in
the place of ids (:class:`VectorCode`); the provider reads them as rows of its embedding.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

import torch
from torch import Tensor

from smd_research.boundary import Boundary, Channel, Party, Untrusted
from smd_research.boundary.messages import (
    ClassifyRows,
    ClassifyVectors,
    Done,
    Labels,
    Message,
    Progress,
    Tune,
    TuningRows,
    TuningVectors,
    token_tensor,
)
from smd_research.core.errors import ConfigError, ProtocolError
from smd_research.core.seeds import generator
from smd_research.data.texts import Readable, Texts, VectorTexts
from smd_research.defenses.tunable import TunablePrepared, VectorCode
from smd_research.mechanisms.privacy.randomised_response import RandomisedResponse
from smd_research.models.bundle import Bundle
from smd_research.training.buckets import in_order
from smd_research.training.classifier import Classifier
from smd_research.training.kept import TuningRequest, tuned_once, tuned_weights
from smd_research.training.methods import Machine, Tuning
from smd_research.training.tuning import OnStep, Tuned, tune

MESSAGE_NUMBERS = 2**20
"""Ids, or coordinates of vectors, of one message: 4 MiB."""
_Coded: TypeAlias = TuningRows | TuningVectors | ClassifyRows | ClassifyVectors

READ_TEXTS = 64
"""Texts that the provider reads at once when it classifies."""


class TuningProvider(Untrusted):
    """Stores rows, tunes a copy of its model on them, classifies with it.

    Args:
        start: the model it was given.
        tuning: how it tunes.
        machine: where.
        folder: where its checkpoints and the tuned weights lie: a provider started again goes on from there.
        channel: its end of the boundary.
    """

    def __init__(self, start: Bundle, tuning: Tuning, machine: Machine, folder: Path, channel: Channel) -> None:
        super().__init__()
        self._start, self._tuning, self._machine, self._folder = start, tuning, machine, folder
        self._tell: OnStep = lambda step, steps: channel.notify(Progress(step, steps))
        self._rows: dict[int, list[Readable]] = {0: [], 1: []}
        self._tuned: Tuned | None = None

    def handle(self, message: Message) -> Message | None:
        if isinstance(message, TuningRows | TuningVectors):
            self._rows[1 if message.held_out else 0].append(self._texts(message, message.labels))
            return Done()
        if isinstance(message, Tune):
            self._tuned = self._tune(message)
            return Done()
        if isinstance(message, ClassifyRows | ClassifyVectors):
            return Labels(token_tensor(self._classify(self._texts(message))))
        raise ProtocolError(f"the provider does not serve {type(message).__name__}")

    def _texts(self, message: _Coded, labels: Tensor | None = None) -> Readable:
        """Texts as they were sent.

        Raises:
            ProtocolError: where the lengths do not add up, there is not one label a text, or vectors do not fit.
        """
        sent = message.ids if isinstance(message, TuningRows | ClassifyRows) else message.vectors
        counts, named = message.lengths.tolist(), () if labels is None else tuple(labels.tolist())
        if sum(counts) != len(sent) or min(counts, default=1) < 1:
            raise ProtocolError("malformed rows: lengths must be positive and add up to the number of tokens")
        if named and len(named) != len(counts):
            raise ProtocolError("malformed rows: one label for each text, or none")
        parts = torch.split(sent, counts)
        if sent.dim() == 1:
            return Texts(tuple(tuple(part.tolist()) for part in parts), named)
        if sent.shape[1] != self._start.geometry.width:
            raise ProtocolError(f"vectors of width {sent.shape[1]} where {self._start.geometry.width} is due")
        return VectorTexts(parts, named)

    def _tune(self, message: Tune) -> Tuned:
        training, held_out = (_joined(self._rows[part]) for part in (0, 1))
        start, words, tuning, folder = self._start, message.words, self._tuning, self._folder
        request = TuningRequest(start.fingerprint(), training, held_out, tuning, message.classes, words, message.seed)
        run = partial(
            tune,
            start.model,
            training,
            held_out,
            tuning,
            classes=message.classes,
            words=words,
            seed=message.seed,
            folder=folder,
            machine=self._machine,
            on_step=self._tell,
        )
        return tuned_once(request, start.model, folder, run)

    @torch.inference_mode()
    def _classify(self, texts: Readable) -> list[int]:
        module = self._served().module
        if not isinstance(module, Classifier):
            raise ProtocolError("the provider tuned the next token: it has no classes to tell")
        found = torch.zeros(len(texts), dtype=torch.long)
        for rows in in_order(texts.lengths, READ_TEXTS):
            ids, lengths, _ = texts.batch(rows)
            found[rows] = module(ids.to(self._start.device), lengths.to(self._start.device)).argmax(-1).cpu()
        return [int(label) for label in found]

    def _served(self) -> Tuned:
        if self._tuned is None:
            raise ProtocolError("the provider has not tuned yet: send Tune first")
        return self._tuned

    def memory(self) -> dict[str, int]:
        return {"weights": self._start.weight_bytes, "kv": 0}

    def outcome(self) -> dict[str, float]:
        """What tuning took, for the measurement tap: steps, seconds, smallest held-out loss in nats, operations."""
        return {name: float(value) for name, value in asdict(self._served().outcome).items()}

    @torch.inference_mode()
    def next_token(self, ids: Sequence[int], right: Sequence[int]) -> tuple[float, int]:
        """Of a text, for the measurement tap: summed negative log-likelihood in nats, and tokens predicted right.

        Args:
            ids: of the text as it is read.
            right: of the text whose every next token is to be predicted.
        """
        row, target = (torch.tensor(list(one), device=self._start.device) for one in (ids[:-1], right[1:]))
        logits = self._served().model(input_ids=row[None], use_cache=False).logits[0].float()
        nll = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
        return float(nll), int((logits.argmax(-1) == target).sum())


class TuningClient(Party):
    """The user's side: takes the provider's word on how far it is.

    Args:
        on_step: told the number of the step that was done, and of all.
    """

    def __init__(self, on_step: OnStep | None = None) -> None:
        self._on_step = on_step

    def handle(self, message: Message) -> Message | None:
        if not isinstance(message, Progress):
            raise ProtocolError(f"the client does not serve {type(message).__name__}")
        if self._on_step:
            self._on_step(message.step, message.steps)
        return None


class TuningDeployment:
    """The two parties of private tuning and inference; a context manager that ends them.

    Args:
        prepared: the model that the provider gets, and the client's code.
        boundary: joins the parties.
        classes: number of classes; 0 tunes the next token.
        tuning: how the provider tunes.
        machine: where.
        folder: of the provider, on this machine: the tuned weights are read from it, as an attacker there would.
        client: the user's side.

    Raises:
        ConfigError: for an epsilon of labels where there are none, or vectors where the next token is tuned.
    """

    def __init__(
        self,
        prepared: TunablePrepared,
        boundary: Boundary,
        classes: int,
        tuning: Tuning,
        machine: Machine,
        folder: Path,
        client: TuningClient | None = None,
    ) -> None:
        self.code = prepared.code.for_classes(classes) if classes else prepared.code
        if not classes and isinstance(self.code, VectorCode):
            raise ConfigError("the next token cannot be tuned on vectors: they name no token; use a task with classes")
        self.before = prepared.public
        self.boundary = boundary
        self._classes, self._folder, self._seed = classes, folder, prepared.seed
        self._response = None if tuning.label_epsilon is None else RandomisedResponse(tuning.label_epsilon, classes)
        make = partial(TuningProvider, prepared.public, tuning, machine, folder)
        self._channel = boundary.open(client or TuningClient(), make)

    def upload(self, texts: Texts, *, held_out: bool = False, first: int = 0) -> None:
        """Send texts to tune on.

        Args:
            texts: in plain; what is sent is encoded.
            held_out: whether they only decide when to stop.
            first: number of the first text among all that are ever sent.
        """
        for part in _parts(self._coded(texts, first)):
            sent, lengths, labels = _tensors(part)
            kind = TuningRows if isinstance(part, Texts) else TuningVectors
            self._channel.request(kind(sent, lengths, labels, int(held_out)))

    def tune(self, words: Sequence[int], seed: int) -> dict[str, float]:
        """Have the provider tune on what was sent, and what it took: ``steps``, ``seconds``, ``loss``, ``flops``.

        Args:
            words: plain token id that stands for each class, or nothing: a head of its own.
            seed: of initialisation and order.
        """
        ranked = sorted(range(len(words)), key=self.code.encode_label)
        sent = self.code.encode([words[label] for label in ranked]) if words else ()
        self._channel.request(Tune(token_tensor(tuple(sent)), self._classes, seed))
        outcome: dict[str, float] = self.boundary.tap("outcome")
        return outcome

    def classify(self, texts: Texts, *, first: int = 0) -> list[int]:
        """The class of each text, decoded.

        Args:
            texts: in plain.
            first: number of the first text among all that are ever sent.
        """
        found: list[int] = []
        for part in _parts(self._coded(replace(texts, labels=()), first)):
            sent, lengths, _ = _tensors(part)
            kind = ClassifyRows if isinstance(part, Texts) else ClassifyVectors
            answer = self._channel.request(kind(sent, lengths))
            if not isinstance(answer, Labels) or len(answer.labels) != len(part):
                raise ProtocolError("the provider did not answer with one label a text")
            found += [self.code.decode_label(label) for label in answer.labels.tolist()]
        return found

    def next_token(self, texts: Texts, *, first: int = 0) -> list[tuple[float, int]]:
        """Through the measurement tap: negative log-likelihood in nats and tokens predicted right of each text.

        What is predicted is the text, also where it was read with tokens replaced.
        """
        read, right = self._encoded(self.code.replaced(texts.ids, first), first), self._encoded(texts.ids, first)
        pairs = zip(read, right, strict=True)
        found: list[tuple[float, int]] = [self.boundary.tap("next_token", *pair) for pair in pairs if len(pair[0]) > 1]
        return found

    @property
    def tuned(self) -> Bundle:
        """The model as the provider holds it after tuning."""
        model = copy.deepcopy(self.before.model).float()
        model.load_state_dict(tuned_weights(self._folder), strict=False)
        return replace(self.before, model=model)

    def _coded(self, texts: Texts, first: int) -> Readable:
        told = (self._said_label(label, first + number) for number, label in enumerate(texts.labels))
        labels = tuple(map(self.code.encode_label, told))
        if isinstance(self.code, VectorCode):
            return VectorTexts(tuple(self.code.vectors(text, first + n) for n, text in enumerate(texts.ids)), labels)
        return Texts(self._encoded(self.code.replaced(texts.ids, first), first), labels)

    def _said_label(self, label: int, number: int) -> int:
        """The class that a text is said to have; the same whenever it is asked for, or another draw would tell more."""
        if self._response is None:
            return label
        return self._response.sample(label, generator(self._seed, "label", number))

    def _encoded(self, texts: Sequence[Sequence[int]], first: int) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(self.code.encode(text, first + number)) for number, text in enumerate(texts))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.boundary.close()


def _parts(texts: Readable) -> Iterator[Readable]:
    """Texts in portions of at most ``MESSAGE_NUMBERS`` numbers (one text at least)."""
    width = texts.rows[0].shape[-1] if isinstance(texts, VectorTexts) and len(texts) else 1
    first, held, lengths = 0, 0, texts.lengths.tolist()
    for number, tokens in enumerate(lengths):
        if held and (held + tokens) * width > MESSAGE_NUMBERS:
            yield texts.part(first, number)
            first, held = number, 0
        held += tokens
    if first < len(lengths):
        yield texts.part(first, len(lengths))


def _tensors(texts: Readable) -> tuple[Tensor, Tensor, Tensor]:
    if isinstance(texts, VectorTexts):
        sent = torch.cat(texts.rows)
    else:
        sent = token_tensor(tuple(token for text in texts.ids for token in text))
    return sent, token_tensor(tuple(texts.lengths.tolist())), token_tensor(texts.labels)


def _joined(parts: Sequence[Readable]) -> Readable:
    """Portions as one.

    Raises:
        ProtocolError: where some came as ids and some as vectors.
    """
    labels = tuple(label for part in parts for label in part.labels)
    texts = [part for part in parts if isinstance(part, Texts)]
    vectors = [part for part in parts if isinstance(part, VectorTexts)]
    if texts and vectors:
        raise ProtocolError("malformed rows: either ids or vectors")
    if vectors:
        return VectorTexts(tuple(row for part in vectors for row in part.rows), labels)
    return Texts(tuple(text for part in texts for text in part.ids), labels)
