"""English of another kind than the generator's: the reference manual that ships with every Python interpreter.

A model that was trained on the synthetic registers knows nothing of it, so what fine-tuning on it gains is the private
part of a descendant. The text is that of the interpreter at hand: it differs a little between Python versions.
"""

import zlib
from dataclasses import dataclass
from functools import cache
from pydoc_data.topics import topics

from smd_research.data.prompts import Document
from smd_research.data.sources import EVALUATION, PROMPT_SHARE, TRAIN, Division
from smd_research.data.synthetic import generate

REFERENCE = "reference"
_SHORTEST = 80  # characters; what is shorter is a heading or a line of grammar
_VALIDATION_BELOW = 35  # of a hash of 0 .. 99, the quarter below which is the evaluation part


@cache
def _paragraphs() -> tuple[Document, ...]:
    blocks = (block.strip() for name in sorted(topics) for block in topics[name].split("\n\n"))
    long_ones = dict.fromkeys(block for block in blocks if len(block) >= _SHORTEST)
    return tuple(Document(f"{REFERENCE}-{number}", text, (), REFERENCE) for number, text in enumerate(long_ones))


@dataclass(frozen=True)
class PythonReference:
    """Paragraphs of Python's reference manual; a quarter is the evaluation part, as with files."""

    chat: bool = False

    def documents(self, split: str, n: int, seed: int) -> list[Document]:
        """At most ``n`` paragraphs of a split.

        Raises:
            ConfigError: for an unknown split.
        """
        return Division.of(_paragraphs(), PROMPT_SHARE, "Python's reference manual").part(split, n, seed)


def private(part: str, n: int, seed: int) -> list[Document]:
    """At most ``n`` pages to tune on in private: of the evaluation part, which nobody trains on otherwise.

    Args:
        part: of a task; ``train``, ``validation`` or ``evaluation``, disjoint.
        n: how many.
        seed: decides the order.
    """
    pages = PythonReference().documents(EVALUATION, len(_paragraphs()), seed)
    return [page for page in pages if _part(page.text) == part][:n]


def _part(text: str) -> str:
    """Which part of private text a page is: 70, 10 and 20 of 100."""
    bucket = zlib.crc32(text[::-1].encode()) % 100
    return TRAIN if bucket < 70 else "validation" if bucket < 80 else EVALUATION


def stream(register: str, split: str, n: int, seed: int, start: int = 0) -> list[Document]:
    """Documents ``start .. start + n`` of an endless stream to train on.

    Args:
        register: of the generator, or ``reference``, which is gone through again and again.
        split: ``train``, ``validation`` or ``evaluation``.
        n: how many.
        seed: decides values, or the order.
        start: number of the first.
    """
    if register != REFERENCE:
        return generate(register, split, n, seed, start=start)
    part = EVALUATION if split == EVALUATION else TRAIN
    pages = PythonReference().documents(part, len(_paragraphs()), seed)
    if part == TRAIN:
        held_back = split != TRAIN
        pages = [page for page in pages if (_bucket(page.text) < _VALIDATION_BELOW) == held_back]
    return [pages[number % len(pages)] for number in range(start, start + n)]


def _bucket(text: str) -> int:
    return zlib.crc32(text.encode()) % 100
