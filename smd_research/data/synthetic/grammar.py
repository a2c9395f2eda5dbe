r"""The clause notation: ``[a|b]`` chooses, ``{slot}`` draws a value, ``{slot!}`` keeps it for the document,
``{@section}`` expands a clause of a section, ``\n`` breaks the line.

Patterns live in ``grammar/<register>.txt``. A pattern is a family of *templates*: the texts that its choices give,
slots unfilled. A stable hash places every template in one split, so a model can learn the language of a register from
the train split and still never has seen a template of the evaluation split.
"""  # noqa: D205

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from random import Random

from smd_research.core.errors import ConfigError
from smd_research.data.prompts import Span
from smd_research.data.synthetic.partition import CorpusSplit, split_of

_TOKEN = re.compile(r"\[|\]|\||[^\[\]|]+")
_PIECE = re.compile(r"\{@?\w+!?\}|[^{}]+")


@dataclass(frozen=True)
class Slot:
    """A value to draw; ``bound`` values are drawn once a document."""

    name: str
    bound: bool


@dataclass(frozen=True)
class Section:
    """A clause of the named section."""

    name: str


Template = tuple[str | Slot | Section, ...]
Families = tuple[tuple[str, ...], ...]


def templates(pattern: str) -> tuple[str, ...]:
    """Every text that the choices of a pattern give, slots unfilled, sorted and without duplicates.

    Raises:
        ConfigError: if brackets do not match.
    """
    tokens = _TOKEN.findall(pattern.replace("\\n", "\n"))
    options, position = _options(tokens, 0, pattern)
    if position != len(tokens):
        raise ConfigError(f"grammar pattern {pattern!r}: ']' without '['")
    return tuple(sorted({_tidy(text) for text in options}))


def _options(tokens: list[str], position: int, pattern: str) -> tuple[list[str], int]:
    """All texts of the alternatives from ``position`` up to the closing bracket or the end."""
    finished: list[str] = []
    current = [""]
    while position < len(tokens) and tokens[position] != "]":
        token = tokens[position]
        position += 1
        if token == "[":
            inner, position = _options(tokens, position, pattern)
            if position >= len(tokens):
                raise ConfigError(f"grammar pattern {pattern!r}: '[' is never closed")
            position += 1
            current = [before + after for before in current for after in inner]
        elif token == "|":
            finished += current
            current = [""]
        else:
            current = [before + token for before in current]
    return finished + current, position


def _tidy(text: str) -> str:
    """An optional part that was left out must not leave two spaces behind, nor one before a full stop."""
    return re.sub(r" +(?=[ .,;:?!\n]|$)|(?<=\n) +|^ +", "", text)


@cache
def parse(template: str) -> Template:
    """The pieces of a template.

    Raises:
        ConfigError: if a brace is not part of a slot.
    """
    pieces = _PIECE.findall(template)
    if "".join(pieces) != template:
        raise ConfigError(f"grammar template {template!r}: stray brace; write slots as {{name}}")
    return tuple(_piece(piece) for piece in pieces)


def _piece(piece: str) -> str | Slot | Section:
    if piece.startswith("{@"):
        return Section(piece[2:-1])
    if piece.startswith("{"):
        return Slot(piece[1:-1].removesuffix("!"), piece.endswith("!}"))
    return piece


@lru_cache(maxsize=8)
def families(register: str) -> dict[str, Families]:
    """The templates of a register: by section, then by the pattern that gives them, before any split."""
    found: dict[str, list[tuple[str, ...]]] = {}
    text = (files(__package__) / "grammar" / f"{register}.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("== "):
            current = found.setdefault(line[3:].strip(), [])
        elif line and not line.startswith("#"):
            current.append(templates(line))
    return {name: tuple(patterns) for name, patterns in found.items()}


@lru_cache(maxsize=16)
def families_of_split(register: str, split: CorpusSplit) -> dict[str, Families]:
    """The templates of a register that belong to ``split``; patterns that have none there are left out."""
    kept = {}
    for name, patterns in families(register).items():
        parts = (tuple(text for text in pattern if split_of(text) == split) for pattern in patterns)
        kept[name] = tuple(part for part in parts if part)
    return kept


@dataclass
class Expansion:
    """A text under construction and the secrets marked so far.

    ``draw`` maps a slot to its text and secret type (None where the value is an ordinary word).
    """

    grammar: dict[str, Families]
    draw: Callable[[Slot], tuple[str, str | None]]
    rng: Random
    parts: list[str] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    length: int = 0
    used: set[int] = field(default_factory=set)

    def expand(self, section: str) -> None:
        """Append a clause of ``section``."""
        for piece in parse(self._clause(section)):
            if isinstance(piece, Section):
                self.expand(piece.name)
                continue
            text, secret = (piece, None) if isinstance(piece, str) else self.draw(piece)
            if secret is not None:
                self.spans.append(Span(self.length, self.length + len(text), secret))
            self.write(text)

    def write(self, text: str) -> None:
        """Append a text of no section, in which nothing is secret."""
        self.parts.append(text)
        self.length += len(text)

    def _clause(self, section: str) -> str:
        """A template of the section, of another pattern than those already used where there is one left."""
        patterns = self.grammar[section]
        fresh = [pattern for pattern in patterns if id(pattern) not in self.used] or patterns
        pattern = fresh[int(self.rng.random() * len(fresh))]
        self.used.add(id(pattern))
        return pattern[int(self.rng.random() * len(pattern))]
