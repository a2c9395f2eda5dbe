"""What private tuning left: a model that was tuned under a defense, and what the provider saw of it."""

from dataclasses import dataclass

import pandas as pd

from experiments.lab.frames import messages_frame, metrics_frame
from experiments.trials.pursuit import Findings
from experiments.trials.scoring import score
from experiments.trials.seen import Seen
from smd_research.boundary import AdversaryView, Link

PHASES = ("upload", "tuning", "inference")


@dataclass(frozen=True, repr=False, eq=False)
class LabTuning:
    """A model that was tuned on private texts. Its repr shows none of them.

    Attributes:
        seen: what tuning left: views, what was true, what the user got, what it cost.
        link: modelled over the counted traffic.
        lab: stands for the laboratory that gave it.
    """

    seen: Seen
    link: Link
    lab: object

    @property
    def views(self) -> tuple[AdversaryView, ...]:
        """What the provider saw: of the upload, of tuning, of inference."""
        return self.seen.views

    @property
    def messages(self) -> pd.DataFrame:
        """What crossed the boundary, one row a message: as of an answer, with the ``phase`` before it."""
        frames = {phase: messages_frame(view) for phase, view in zip(PHASES, self.views, strict=True)}
        return pd.concat(frames, names=["phase", None]).reset_index("phase").reset_index(drop=True)

    @property
    def metrics(self) -> pd.DataFrame:
        """How well the tuned model does, and what it took: ``what``, ``value``, ``low``, ``high``."""
        return metrics_frame(score(self.seen, Findings(), self.link)[0])

    @property
    def guarantees(self) -> str:
        """All that is promised, in words; ``none`` where nothing is."""
        return self.seen.guarantees

    def __repr__(self) -> str:
        texts = self.seen.truth.texts
        count = 0 if texts is None else len(texts.training.ids)
        return f"LabTuning(texts={count}, messages={[len(view.messages) for view in self.views]})"

    def _repr_html_(self) -> str:
        """The metrics, as a notebook shows them."""
        return self.metrics.to_html(float_format="{:.4g}".format, na_rep="", border=0)
