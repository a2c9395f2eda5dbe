"""When an option counts, and what it needs beside it, as a component's YAML says it.

A condition is a name alone (it has a value), a name with its choices (``bits=8|4``, ``epsilon=null``) or a name with a
range (``homophones above 1``).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.composing.values import shown, takes

_FORM = re.compile(r"([\w.]+)(?:=(\S+)| (.+))?")


@dataclass(frozen=True)
class Condition:
    """A condition on one option.

    Attributes:
        name: of the option.
        choices: one of them it has to be; none: any.
        words: a range in which it has to lie; empty: any.
    """

    name: str
    choices: tuple[str, ...] = ()
    words: str = ""

    @classmethod
    def of(cls, said: str) -> "Condition":
        """Read a condition.

        Raises:
            ValueError: it has none of the three forms.
        """
        form = _FORM.fullmatch(said)
        if form is None:
            raise ValueError(f"'{said}' is no condition")
        return cls(form[1], tuple(form[2].split("|")) if form[2] else (), form[3] or "")

    def holds(self, options: Mapping[str, Any]) -> bool:
        """Whether options are so; one that is lacking is null."""
        value = options.get(self.name)
        if self.choices:
            return shown(value) in self.choices
        return value is not None and not (self.words and takes("float", self.words).wrong(value))

    def said(self, group: str = "") -> str:
        """In words, the option called as on the command line."""
        name = f"{group}.{self.name}" if group else self.name
        return f"{name}={' or '.join(self.choices)}" if self.choices else f"{name} {self.words or 'given'}"
