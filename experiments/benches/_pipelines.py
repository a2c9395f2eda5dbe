"""The integer pipelines of weight decomposition that are compared: families by forms of the exposed weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from experiments.benches._slip import RANK, model
from experiments.benches.case import Label, Settings, Size
from smd_research.boundary import Boundary
from smd_research.defenses.slip import Slip, SlipDeployment
from smd_research.models import Bundle

MODELS = {"small": ("embedded", "llama", "gpt2", "qwen2", "gpt_neox"), "full": ("embedded", "gpt2_124m", "llama2_7b")}
FORMS = {"wide": 16, "narrow": 8}
"""Bits of an exposed weight by field: two limbs or one."""


@dataclass(frozen=True)
class Pipeline:
    """One of them.

    Attributes:
        model: ``embedded``, or a family of which it is a random model.
        field: ``wide`` or ``narrow``.
    """

    model: str
    field: str

    @property
    def bits(self) -> int:
        """Of an exposed weight."""
        return FORMS[self.field]

    @property
    def name(self) -> str:
        """As a case calls it."""
        return f"{self.model} bits={self.bits} field={self.field}"

    @property
    def labels(self) -> dict[str, Label]:
        """As a table's rows have them."""
        return {"model": self.model, "bits": self.bits, "field": self.field, "rank": RANK}

    def bundle(self, settings: Settings) -> Bundle:
        """The model, without an end token."""
        return model(settings, self.model)

    def deploy(
        self, bundle: Bundle, settings: Settings, masking: str = "uniform", verify: int = 2, record: bool = False
    ) -> SlipDeployment:
        """Both parties in this process, strict."""
        defense = Slip(rank=RANK, bits=self.bits, field=self.field, masking=masking, verify=verify)
        made = defense.prepare(bundle, seed=settings.seed).deploy(Boundary(record=record))
        assert isinstance(made, SlipDeployment)
        return made


def pipelines(size: Size) -> Iterator[Pipeline]:
    """All of them, model by model."""
    for name, field in product(MODELS[size], FORMS):
        yield Pipeline(name, field)
