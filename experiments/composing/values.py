"""What a value may be, in words that are read by people and held against values: ``1 or more``, ``none | norm | rank``.

A range is one or more of these, joined by commas; ``LAYERS`` and ``CONTEXT`` stand for what the cell's model has,
another option's name in capitals for its value::

    1 or more    above 0    at most 1    below 1    other than 0    1 to STEPS    between 0 and 1 (neither of them)
    multiple of 4

Anything else is one of a few patterns (``32 hexadecimal digits``), or a choice of words or numbers between bars.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.composing.overrides import nearest
from experiments.composing.signatures import ValueKind, kind_of

OF_THE_MODEL = ("LAYERS", "CONTEXT")

Bounds = Mapping[str, float]
"""What a word of a range stands for, where it is known."""

_NUMBER = r"([-+.\de]+|[A-Z_]+)"
_Test = tuple[Callable[[Any, Any], bool], ...]
_FORMS: Sequence[tuple[re.Pattern[str], _Test]] = [
    (re.compile(f"{_NUMBER} or more"), (operator.ge,)),
    (re.compile(f"above {_NUMBER}"), (operator.gt,)),
    (re.compile(f"at most {_NUMBER}"), (operator.le,)),
    (re.compile(f"below {_NUMBER}"), (operator.lt,)),
    (re.compile(f"other than {_NUMBER}"), (operator.ne,)),
    (re.compile(f"{_NUMBER} to {_NUMBER}"), (operator.ge, operator.le)),
    (re.compile(f"between {_NUMBER} and {_NUMBER}"), (operator.gt, operator.lt)),
    (re.compile(f"multiple of {_NUMBER}"), (lambda value, of: value % of == 0,)),
]
_PATTERNS = {
    "32 hexadecimal digits": re.compile("[0-9a-fA-F]{32}"),
    "HOST:PORT, or the path of a socket": re.compile(r".*/.*|.+:\d{1,5}"),
    "text with {text} in it once": re.compile(r"((?!\{text\}).)*\{text\}((?!\{text\}).)*", re.DOTALL),
}
_NOUNS = {"int": "whole number", "float": "number", "str": "text", "bool": "true or false", "list": "list"}


@dataclass(frozen=True)
class Takes:
    """What an option takes.

    Attributes:
        kind: what its annotation asks for.
        words: its range or its choices; empty for all of the kind.
    """

    kind: ValueKind
    words: str = ""

    def wrong(self, value: Any, bounds: Bounds = {}) -> str:  # noqa: B006 (never written to)
        """What is wrong with a value, in a few words; empty where nothing is."""
        if not self.kind.types and (not self.words or (value is None and not self.choices)):
            return ""  # no annotation says that it is wrong
        if value is None and "null" in self.kind.types:
            return ""
        if "list" in self.kind.types:
            inside = Takes(self.kind.items or ValueKind(), self.words)
            wrong = [inside.wrong(one, bounds) for one in value] if isinstance(value, list) else []
            return next(filter(None, wrong), "") if wrong else f"give {self.asked(bounds)}"
        if self.choices:
            return "" if shown(value) in self.choices else f"is unknown: {nearest(shown(value), self.choices)}"
        return "" if self._is_of_kind(value) and self._is_within(value, bounds) else f"give {self.asked(bounds)}"

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that there are, ``null`` among them; none where it is no choice."""
        words = tuple(word.strip() for word in self.words.split("|")) if self.words else self.kind.words
        if self.words and (self.words in _PATTERNS or _tests(self.words, {}) is not None):
            return ()
        return (*words, "null") if words and "null" in self.kind.types else words

    def asked(self, bounds: Bounds = {}) -> str:  # noqa: B006
        """What is taken, in words."""
        words = self.words
        for name in () if words in _PATTERNS else re.findall("[A-Z_]+", words):
            called = f"the model's {name.lower()}" if name in OF_THE_MODEL else name.lower()
            words = words.replace(name, f"{bounds[name]} ({called})" if name in bounds else called)
        if words in _PATTERNS:
            asked = words
        elif "list" in self.kind.types and self.kind.items:
            inside = Takes(self.kind.items, words).asked()
            asked = f"a list, [A,B], each {inside}"
        else:
            types = self._types - {"null", "list"} - ({"int"} if "float" in self._types else set())
            nouns = " or ".join(_NOUNS[one] for one in ("int", "float", "str", "bool") if one in types)
            asked = nouns if types == {"bool"} else f"a {nouns}{_joint(words)}"
        return f"{asked}{', or null' if 'null' in self.kind.types else ''}"

    @property
    def _types(self) -> frozenset[str]:
        """Those of the annotation; where it says nothing, those that a range or a pattern is of."""
        return self.kind.types or frozenset({"str"} if self.words in _PATTERNS else {"int", "float"})

    def _is_of_kind(self, value: Any) -> bool:
        types = self._types
        if isinstance(value, bool):
            return "bool" in types
        if isinstance(value, int):
            return bool({"int", "float"} & types) and abs(value) < 2**63
        if isinstance(value, float):
            return "float" in types and math.isfinite(value)
        return isinstance(value, str) and "str" in types and bool(value.strip() or not self.words)

    def _is_within(self, value: Any, bounds: Bounds) -> bool:
        if pattern := _PATTERNS.get(self.words):
            return isinstance(value, str) and bool(pattern.fullmatch(value))
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        tests = _tests(self.words, bounds) if self.words and numeric else []
        return all(test(value, bound) for test, bound in tests or [])


def takes(annotation: str, words: str = "") -> Takes:
    """What an option takes by an annotation of builtin types, and its range or choices."""
    return Takes(kind_of(annotation), words)


def shown(value: Any) -> str:
    """A value as a command line writes it."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _tests(words: str, bounds: Bounds) -> list[tuple[Callable[[Any, Any], bool], float]] | None:
    """The comparisons of a range, without those that rest on what is not known; None where the words are no range."""
    found: list[tuple[Callable[[Any, Any], bool], float]] = []
    for part in words.split(", "):
        form = next(((match, tests) for form, tests in _FORMS if (match := form.fullmatch(part.strip()))), None)
        if form is None:
            return None
        for number, test in zip(form[0].groups(), form[1], strict=True):
            bound = bounds.get(number) if number.isupper() else float(number)
            found.extend([(test, bound)] if bound is not None else [])
    return found


def _joint(words: str) -> str:
    if not words:
        return ""
    return f", {words}" if words[0].isdigit() or words[0] == "-" else f" {words}"
