"""What a laboratory answers: the text, what crossed for it, what it was worth and what it cost."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape

import pandas as pd

from experiments.lab.frames import messages_frame
from experiments.trials.plain import Plain
from experiments.trials.scoring import item, request_cost
from experiments.trials.serving import Served
from smd_research.boundary import AdversaryView, Link
from smd_research.data.prompts import Prompt
from smd_research.models.bundle import Bundle


@dataclass(frozen=True, repr=False, eq=False)
class LabAnswer:
    """The answer to one prompt under a defense. Its repr never shows what was said; ``_repr_html_`` does.

    ``dataclasses.replace(answer, view=...)`` is the same answer with another view, e.g. with messages left out.

    Attributes:
        served: the request as it was recorded and scored.
        view: what the untrusted party saw: sealed, and all that an attack gets besides what is public.
        plain: the unprotected model's answer.
        draw: number of the request, on which the defense's randomness hangs.
        bundle: the user's model.
        link: modelled over the counted traffic.
        lab: stands for the laboratory that gave it.
    """

    served: Served
    view: AdversaryView
    plain: Plain
    draw: int
    bundle: Bundle
    link: Link
    lab: object

    @property
    def prompt(self) -> Prompt:
        """What was asked, with its secrets marked."""
        return self.served.prompt

    @property
    def ids(self) -> tuple[int, ...]:
        """Token ids of the answer."""
        return self.served.ids

    @property
    def text(self) -> str:
        """The answer."""
        return self.bundle.decode(self.ids)

    @property
    def plain_text(self) -> str:
        """What the unprotected model answers."""
        return self.bundle.decode(self.plain.ids)

    @cached_property
    def messages(self) -> pd.DataFrame:
        """What crossed the boundary, one row a message: ``direction, kind, shapes, address, bytes``."""
        return messages_frame(self.view)

    @property
    def utility(self) -> Mapping[str, float]:
        """The answer beside the unprotected model's, by metric: ``kl``, ``greedy_equal``, ``logit_error``, ..."""
        return {name: value for name, value in self.served.utility.items() if not math.isnan(value)}

    @property
    def cost(self) -> Mapping[str, float]:
        """What the request took, by metric: ``messages``, ``rounds``, ``bytes_to_untrusted``, ``ttft_ms``, ...

        Times are those of the recorded request: ``smd run`` and ``smd bench`` measure without the recorder, after a
        warm-up.
        """
        costs = request_cost(self.served.request, self.link)
        return {name: float(value) for name, value in costs.items() if not math.isnan(value)}

    def __repr__(self) -> str:
        said = f"prompt={self.prompt.id!r}, tokens={len(self.ids)}, messages={len(self.view.messages)}"
        return f"LabAnswer({said})"

    def _repr_html_(self) -> str:
        """The prompt with its secrets underlined, the answer, and what crossed, as a notebook shows it."""
        from smd_research.reports.render.fragment import fragment
        from smd_research.reports.render.page import prompt_html

        kinds = Counter(type(one).__name__ for _, one in self.view.messages)
        crossed = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing"
        sent, kl = sum(one.nbytes for _, one in self.view.messages), self.utility.get("kl", math.nan)
        return fragment(
            prompt_html(item(self.prompt.unwrapped, {}, None, self.bundle))
            + f'<p class="tokens guess">{escape(self.text)}</p>\n'
            f'<p class="quiet">crossed: {escape(crossed)}; {sent:,} bytes; KL from the unprotected model {kl:.3g}</p>'
        )
