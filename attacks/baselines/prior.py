"""What is public alone: prompt length, output tokens, a chat template's, and a corpus of the same kind of text.

Reads no protocol message, so it is the level that any attack on the protocol has to beat: the best of several answers.
Which one is best is found out on public documents, whose openings stand in for prompts, never on a prompt.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from attacks.base import PromptAttack, Public
from attacks.baselines.random import public_length
from smd_research.boundary import AdversaryView
from smd_research.core.guess import Guess, Spent
from smd_research.core.seeds import generator
from smd_research.core.wrapper import BARE, Wrapper
from smd_research.models.bundle import Bundle
from smd_research.models.decoding import plain_greedy

NEAREST = (1, 4, 16)
"""Of how many openings, those that explain the answer best, the most frequent token of each position is taken."""

SAMPLES = 16
LONGEST, LONGEST_ANSWER = 64, 8
"""Tokens of openings and answers, at most, on which the answers are compared."""

Ids = NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class Known:
    """What is known of one prompt: its length, the answer to it, and public text of that length.

    Attributes:
        bundle: the public model.
        openings: of public documents ``[documents, length]``.
        written: texts of the public model ``[samples, length]``.
        rarity: weight of each token ``[vocab]`` that an opening shares with the answer.
        output: tokens of the answer.
        shortlist: openings whose likelihood is computed.
        wrapper: public tokens around what the user wrote.
    """

    bundle: Bundle
    openings: Ids
    written: Ids
    rarity: NDArray[np.float64]
    output: tuple[int, ...]
    shortlist: int
    wrapper: Wrapper = BARE

    @cached_property
    def nearest(self) -> Ids:
        """The openings ``[shortlist, length]`` that explain the answer best, best first."""
        shared = np.zeros_like(self.rarity)
        shared[list(self.output)] = self.rarity[list(self.output)]
        ordered = np.sort(self.openings, 1)
        first = np.diff(ordered, axis=1, prepend=-1) != 0  # a token counts once
        found = self.openings[np.argsort(-(shared[ordered] * first).sum(1), kind="stable")[: self.shortlist]]
        return found[np.argsort(-self.explained(found), kind="stable")]

    def explained(self, openings: Ids) -> NDArray[np.float64]:
        """Log likelihood of the answer after each opening in its wrapper, ``[openings]``."""
        return explains(self.bundle, np.array([self.wrapper.around(one) for one in openings]), self.output)


def constant(known: Known) -> Ids:
    """The most frequent token of all openings, everywhere; special ones do not count."""
    counts = np.bincount(known.openings.ravel(), minlength=known.bundle.geometry.vocab)
    counts[sorted(known.bundle.special_ids)] = 0
    return np.full(known.openings.shape[1], counts.argmax())


def mode(openings: Ids) -> Ids:
    """The most frequent token of each position; among equals that of the first opening."""
    found = []
    for column in openings.T:
        counts = np.bincount(column)
        found.append(column[counts[column].argmax()])
    return np.array(found, dtype=np.int64)


def sample(known: Known) -> Ids:
    """Of some texts that the public model writes by itself the one that explains the answer best."""
    best: Ids = known.written[int(known.explained(known.written).argmax())]
    return best


def nearest_mode(count: int) -> Callable[[Known], Ids]:
    """The most frequent token of each position among so many of the nearest openings."""
    return lambda known: mode(known.nearest[:count])


ANSWERS: dict[str, Callable[[Known], Ids]] = {
    "constant": constant,
    "mode": lambda known: mode(known.openings),
    "sample": sample,
    **{f"nearest {count}": nearest_mode(count) for count in NEAREST},
}
"""What may be answered from what is public."""


class Prior(PromptAttack):
    """The best of a constant token, the most frequent token of each position, a sample and the nearest public openings.

    Args:
        shortlist: openings whose likelihood is computed.
        trials: public documents on which the answers are compared.
    """

    def __init__(self, shortlist: int = 16, trials: int = 32) -> None:
        self._size = shortlist
        self._trials = trials
        self._chosen: dict[tuple[int, int, Wrapper], str] = {}
        self._texts: dict[int, tuple[Ids, Ids]] = {}

    def fit(self, public: Public) -> None:
        super().fit(public)
        self._chosen, self._texts = {}, {}
        counts = np.zeros(public.bundle.geometry.vocab)
        for document in public.corpus:
            counts[list(set(document))] += 1
        self._rarity = np.where(counts > 0, np.log((len(public.corpus) + 1) / (1 + counts)), 0.0)

    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        wrapper = view.wrapper
        length = public_length(view) - len(wrapper)
        openings, written = self._of_length(length)
        if not len(openings):
            tokens = [token for document in self.public.corpus for token in document] or [0]
            return Guess((int(np.bincount(tokens).argmax()),) * length).wrapped(wrapper)
        known = self._known(openings, written, view.output_ids, wrapper)
        answer = ANSWERS[self._choice(length, len(view.output_ids), wrapper)](known)
        ranked = tuple(
            tuple(dict.fromkeys([int(first), *map(int, column)]))
            for first, column in zip(answer, known.nearest.T, strict=True)
        )
        return Guess(tuple(map(int, answer)), ranked, spent=Spent(candidates=len(known.nearest))).wrapped(wrapper)

    def _known(self, openings: Ids, written: Ids, output: tuple[int, ...], wrapper: Wrapper = BARE) -> Known:
        return Known(self.public.bundle, openings, written, self._rarity, output, self._size, wrapper)

    def _of_length(self, length: int) -> tuple[Ids, Ids]:
        """Openings of public documents, and texts of the public model, of a length."""
        if length not in self._texts:
            found = [document[:length] for document in self.public.corpus if len(document) >= length]
            openings: Ids = np.array(found, dtype=np.int64).reshape(len(found), length)
            self._texts[length] = openings, write(self.public.bundle, openings)
        return self._texts[length]

    def _choice(self, length: int, outputs: int, wrapper: Wrapper = BARE) -> str:
        """The answer that is right most often on public documents of about this length, continued by the model."""
        about = min(2 ** round(math.log2(length)), LONGEST), min(outputs, LONGEST_ANSWER), wrapper
        if about not in self._chosen:
            self._chosen[about] = self._compared(*about)
        return self._chosen[about]

    def _compared(self, length: int, outputs: int, wrapper: Wrapper) -> str:
        openings, written = self._of_length(length)
        bundle, right = self.public.bundle, dict.fromkeys(ANSWERS, 0.0)
        for index in generator(0, "prior", str(length)).permutation(len(openings))[: self._trials]:
            truth = openings[index]
            others = openings[(openings != truth).any(1)]
            if not len(others):
                continue
            output = plain_greedy(bundle, wrapper.around(truth.tolist()), outputs) if outputs else ()
            known = self._known(others, written, output, wrapper)
            counts = ~np.isin(truth, sorted(bundle.special_ids))
            for name, answer in ANSWERS.items():
                right[name] += float(((answer(known) == truth) & counts).sum()) / max(int(counts.sum()), 1)
        return max(right, key=lambda name: right[name])


@torch.inference_mode()
def write(bundle: Bundle, openings: Ids) -> Ids:
    """Texts ``[samples, length]`` of the public model, which starts as most public documents do."""
    if not openings.size:
        return openings
    draws = torch.Generator().manual_seed(0)
    start = Counter(openings[:, 0].tolist()).most_common(1)[0][0]
    ids = torch.full((SAMPLES, 1), start, device=bundle.device)
    for _ in range(openings.shape[1] - 1):
        law = bundle.model(input_ids=ids, use_cache=False).logits[:, -1].float().softmax(-1).cpu()
        ids = torch.cat([ids, torch.multinomial(law, 1, generator=draws).to(bundle.device)], 1)
    found: Ids = ids.cpu().numpy()
    return found


@torch.inference_mode()
def explains(bundle: Bundle, openings: Ids, output: Sequence[int]) -> NDArray[np.float64]:
    """Log likelihood of the answer after each opening, ``[openings]``; 0 where there is no answer."""
    if not output:
        return np.zeros(len(openings))
    ids = torch.tensor([[*opening, *output] for opening in openings.tolist()], device=bundle.device)
    asked = len(output) + 1
    logits = bundle.model(input_ids=ids, use_cache=False, logits_to_keep=asked).logits[:, -asked:-1].float()
    target = ids[:, openings.shape[1] :]
    loss = functional.cross_entropy(logits.transpose(1, 2), target, reduction="none").sum(1)
    found: NDArray[np.float64] = -loss.cpu().double().numpy()
    return found
