"""Adversarial training: the client learns to send states from which an inverter that learns beside it reads no token.

The form is that of adversarial training against hidden-state probes (Coavoux, Narayan and Cohen, EMNLP 2018).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from smd_research.core.errors import ConfigError
from smd_research.defenses.learned.base import Learned
from smd_research.defenses.learned.lessons import Lesson, Penalty, Schedule, StatesOfText
from smd_research.mechanisms.releases import AdaptedRelease, Release


class Opponent(nn.Module):
    """Reads the token behind each row that is sent.

    Args:
        sample: of public states, whose scale it reads in.
    """

    mean: Tensor
    scale: Tensor
    table: Tensor

    def __init__(self, sample: StatesOfText) -> None:
        super().__init__()
        table = sample.bundle.embedding.float()
        width = len(sample.moments.mean)
        self.register_buffer("mean", sample.moments.mean)
        self.register_buffer("scale", sample.moments.scale)
        self.register_buffer("table", functional.normalize(table - table.mean(0), dim=-1) * table.shape[1] ** 0.5)
        self.inner, self.outer = nn.Linear(width, 2 * width), nn.Linear(2 * width, table.shape[1])

    def forward(self, sent: Tensor) -> Tensor:
        """Log-probabilities ``[rows, vocab]`` of the token behind each row ``[rows, width]``."""
        read = self.outer(functional.gelu(self.inner((sent - self.mean) / self.scale)))
        law: Tensor = (read @ self.table.T / self.table.shape[1] ** 0.5).log_softmax(-1)
        return law


class Confusion(Penalty):
    """The opponent learns to read; the client, that it says no more than the frequency of tokens does.

    The client's term is the divergence of the opponent's law from the frequencies: unlike the opponent's own loss with
    its sign turned, it is least where nothing is read, and is not lowered by misleading an opponent that then learns.

    Args:
        opponent: trained beside.
        frequency: of tokens in public text ``[vocab]``.
        strength: of the client's term.
    """

    frequency: Tensor

    def __init__(self, opponent: Opponent, frequency: Tensor, strength: float) -> None:
        super().__init__()
        self.opponent, self._strength = opponent, strength
        self.register_buffer("frequency", frequency)

    def forward(self, states: Tensor, sent: Tensor, ids: Tensor) -> Tensor:
        """Both terms: each reaches one of the two alone."""
        rows = sent.flatten(0, 1)
        reading = functional.nll_loss(self.opponent(rows.detach()), ids.flatten())
        fixed = {name: value.detach() for name, value in self.opponent.state_dict(keep_vars=True).items()}
        law: Tensor = functional_call(self.opponent, fixed, (rows,))
        told: Tensor = (self.frequency * (self.frequency.log() - law)).sum(-1).mean()
        total: Tensor = reading + self._strength * told
        return total


@dataclass(frozen=True)
class AdversarialLesson(Lesson):
    """Options of adversarial training.

    Attributes:
        strength: of the term that keeps the opponent from reading, beside the divergence of the answer.
    """

    strength: float

    def begin(self, sample: StatesOfText) -> tuple[Release, Penalty]:
        """An adapter that leaves states as they are, and an opponent that reads nothing yet."""
        confusion = Confusion(Opponent(sample), sample.frequency, self.strength)
        return AdaptedRelease(sample.moments), confusion


class Adversarial(Learned):
    """Adversarial training of what a client sends. No guarantee: it holds against the opponent that it trained with.

    Args:
        layer: how many blocks the client runs; 0 sends embeddings.
        strength: see ``AdversarialLesson``.
        steps: see ``lessons.Schedule``, as for the next three.
        batch: rows of a step.
        row_tokens: tokens of a row.
        learning_rate: peak.
        wire_dtype: type in which states cross.

    Raises:
        ConfigError: for a value out of range.
    """

    def __init__(
        self,
        layer: int = 1,
        strength: float = 1.0,
        steps: int = 120,
        batch: int = 4,
        row_tokens: int = 64,
        learning_rate: float = 2e-3,
        wire_dtype: str = "fp32",
    ) -> None:
        if not 0 <= strength < torch.inf:
            raise ConfigError(f"defense.strength={strength:g} is out of range: it is 0 or more, and finite")
        super().__init__(layer, Schedule(steps, batch, row_tokens, learning_rate), wire_dtype)
        self._lesson = AdversarialLesson(float(strength))

    @property
    def lesson(self) -> AdversarialLesson:
        """What the client learns."""
        return self._lesson
