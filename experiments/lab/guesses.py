"""What an attack found: of a prompt a text, laid beside what was asked; of anything else its metrics."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

import pandas as pd

from experiments.lab.answers import LabAnswer
from experiments.lab.frames import metrics_frame, scores_frame
from experiments.trials.guesses import privacy
from experiments.trials.items import token_texts
from experiments.trials.pursuit import Found
from experiments.trials.scoring import item
from smd_research import metrics
from smd_research.core.guess import Guess, Spent
from smd_research.data.prompts import Prompt
from smd_research.metrics import CARDS, Estimate
from smd_research.metrics.control import Answered, controls
from smd_research.models.bundle import Bundle
from smd_research.records import Item

ABSTAINED = "·"
"""Stands in a text for a token that the attack left open."""

Others = Callable[[Prompt], Sequence[Prompt]]
"""Prompts of the laboratory's data that are as long as one, which is none of them."""


@dataclass(frozen=True, repr=False, eq=False)
class LabGuess:
    """What an attack made of one view. Its repr never shows a text; ``_repr_html_`` does.

    Attributes:
        made: the guess as the attack made it, at the user's own tokens.
        attack: what made it.
        prompt: what was asked; None where the attack was given a view without an answer.
        bundle: for its tokenizer.
        scores: what the attack's kind measures besides, by metric.
        others: finds the prompts that chance is measured on.
    """

    made: Guess
    attack: str
    prompt: Prompt | None
    bundle: Bundle
    scores: Mapping[str, float]
    others: Others

    @property
    def ids(self) -> tuple[int, ...]:
        """The best token id at each position; ``-1`` where the attack abstains."""
        return self.made.ids

    @property
    def text(self) -> str:
        """The prompt as the attack reads it, with a dot for every token that it leaves open."""
        return _text(self.ids, self.bundle)

    @property
    def certified(self) -> bool | None:
        """True when the attack proved itself, False when its own check failed, None when it has no check."""
        return self.made.certified

    @property
    def spent(self) -> Spent:
        """What it cost the attacker."""
        return self.made.spent

    @property
    def stream(self) -> int | None:
        """Which of several prompts side by side the attack picks as the real one; None where there was one alone."""
        return self.made.verdicts[0].picked if self.made.verdicts else None

    @property
    def candidates(self) -> tuple[str, ...]:
        """Where several prompts stand side by side: each as the attack read it."""
        return tuple(_text(ids, self.bundle) for ids in self.made.candidates)

    def score(self, answer: LabAnswer | Prompt) -> pd.DataFrame:
        """How much of a prompt the guess gives away, by metric: ``what``, ``value`` and ``chance``.

        ``token_accuracy`` are tokens recovered, ``span_exact`` secrets recovered, both at their place. Their chance is
        the negative control of one guess: the same guess held against each other evaluation prompt of the laboratory's
        data (``n_prompts`` of them, cut to the length of this one), on average; not a number where none is as long.
        What is known without reading a message is one more attack: ``lab.attack("prior", answer)``.

        Args:
            answer: the answer to the prompt, or the prompt itself.
        """
        prompt = (answer if isinstance(answer, Prompt) else answer.prompt).unwrapped
        values = privacy(prompt, self.made, self.bundle)
        if self.prompt is not None and self.prompt.unwrapped.ids == prompt.ids:
            values |= self.scores
        chance = {"stream_found": values.get("stream_chance", math.nan)}
        chance["choice_top1"] = values.get("choice_chance", math.nan)
        shown = {name: value for name, value in values.items() if _is_leak(name)}
        first = {name: shown[name] for name in ("token_accuracy", "span_exact")}
        return scores_frame(first | shown, chance | self._chance(prompt))

    def _chance(self, prompt: Prompt) -> dict[str, float]:
        """Of each metric that has a control, the mean of the guess's score against other prompts."""
        held = [Answered(one.ids, self.made, one.spans) for one in self.others(prompt)]
        found = controls(held, self.bundle.special_ids)
        names = ("token_accuracy", "span_exact")
        return {name: metrics.aggregate([one[f"control_{name}"] for one in found]).mean for name in names}

    def __repr__(self) -> str:
        left = sum(token < 0 for token in self.ids)
        return f"LabGuess(by={self.attack!r}, tokens={len(self.ids)}, abstained={left}, certified={self.certified})"

    def _repr_html_(self) -> str:
        """The prompt coloured by what was recovered, the guess below it, as a notebook shows it."""
        from smd_research.reports.render.fragment import fragment
        from smd_research.reports.render.page import prompt_html

        certified = {True: "certified", False: "its own check failed", None: "no check of its own"}[self.certified]
        picked = "" if self.stream is None else f"; picks stream {self.stream} of {len(self.candidates)}"
        line = f'<p class="quiet">{escape(self.attack)}: {certified}{picked}</p>'
        if self.prompt is None:
            return fragment(f'{line}<p class="tokens">{escape(self.text)}</p>')
        prompt = self.prompt.unwrapped
        scores = privacy(prompt, self.made, self.bundle)
        return fragment(line + prompt_html(item(prompt, {}, Found(self.made, scores), self.bundle)))


@dataclass(frozen=True, repr=False, eq=False)
class LabOutcome:
    """What an attack found that looks for no single prompt: weights, a mapping, an attribute, a broken promise.

    Attributes:
        attack: what found it.
        estimates: its metrics by name.
        items: texts that it read, where it read some.
    """

    attack: str
    estimates: Mapping[str, Estimate]
    items: Sequence[Item]

    @property
    def metrics(self) -> pd.DataFrame:
        """One row a metric: ``what``, ``value``, and its interval ``low``, ``high`` where it has one."""
        return metrics_frame(self.estimates)

    def __getitem__(self, metric: str) -> float:
        """The value of a metric by name."""
        return self.estimates[metric].mean

    @property
    def certified(self) -> bool | None:
        """True when the attack proved itself, False when its own check failed, None when it has no check."""
        found = self.estimates.get("certified")
        return None if found is None else bool(found.mean)

    def __repr__(self) -> str:
        return f"LabOutcome(by={self.attack!r}, metrics={sorted(self.estimates)})"

    def _repr_html_(self) -> str:
        """The metrics, and the first texts that were read, coloured by what was recovered."""
        from smd_research.reports.render.fragment import fragment
        from smd_research.reports.render.page import prompt_html

        read = [one for one in self.items if one.truth_tokens]
        table = self.metrics.to_html(float_format="{:.4g}".format, na_rep="", border=0)
        return fragment(table + "".join(prompt_html(replace(one, metrics={})) for one in read[:5]))


def _is_leak(name: str) -> bool:
    """Whether a metric is a share of the secret, of one prompt; what an attack spent is told by the guess itself."""
    card = CARDS.get(name)
    beside = name.startswith(("control_", "excess_"))  # of the prompts that happened to be attacked together
    return card is not None and card.kind == "privacy" and not card.unit and not beside


def _text(ids: Sequence[int], bundle: Bundle) -> str:
    return "".join(ABSTAINED if text is None else text for text in token_texts(ids, bundle))
