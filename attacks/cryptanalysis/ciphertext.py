"""Encoded text in what was seen, and what a mapping makes of it."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from attacks.base import Ids, Public
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import ClassifyRows, PromptIds, TuningRows
from smd_research.core.errors import NotApplicableError
from smd_research.core.guess import Guess, MappingGuess
from smd_research.models.bundle import Bundle


def origin(public: Public) -> Bundle:
    """The public model that the served one was made from.

    Raises:
        NotApplicableError: when none is known.
    """
    if public.base is None:
        raise NotApplicableError("needs the public model that the served one was made from: none is known here")
    return public.base


def ciphertext(views: Sequence[AdversaryView]) -> list[Ids]:
    """All encoded text in the views, one array of cipher ids a text; what was generated follows its prompt."""
    found: list[Ids] = []
    for view in views:
        prompts = [_ids(message.ids) for message in view.of(PromptIds)]
        if len(prompts) == 1:
            prompts = [np.append(prompts[0], np.array(view.output_ids, dtype=np.int64))]
        found += prompts
        for tuned in view.of(TuningRows):
            found += _texts(tuned.ids, tuned.lengths)
        for classified in view.of(ClassifyRows):
            found += _texts(classified.ids, classified.lengths)
    return found


def public_pairs(views: Sequence[AdversaryView]) -> dict[int, int]:
    """Cipher ids with their plain ids, as far as a chat template's tokens stand at places that everyone knows."""
    found: dict[int, int] = {}
    for view in views:
        for message in view.of(PromptIds) if view.wrapper else ():
            cipher = message.ids.tolist()
            found |= {cipher[place]: plain for place, plain in view.wrapper.known(len(cipher)).items()}
    return found


def _texts(ids: Tensor, lengths: Tensor) -> list[Ids]:
    return np.split(_ids(ids), np.cumsum(_ids(lengths))[:-1])


def _ids(tensor: Tensor) -> Ids:
    return tensor.cpu().numpy().astype(np.int64)


def read(view: AdversaryView, found: MappingGuess) -> Guess:
    """The view's prompt through a mapping."""
    prompts = view.of(PromptIds)
    cipher = _ids(prompts[0].ids) if prompts else np.zeros(0, dtype=np.int64)
    inside = (cipher >= 0) & (cipher < len(found.mapping))
    plain = np.where(inside, found.mapping[np.where(inside, cipher, 0)], -1)
    return Guess(
        tuple(plain.tolist()),
        certified=found.certified,
        readable=found.readable,
        residual=found.residual,
        spent=found.spent,
    )
