"""SentinelLMs' construction (arXiv 2312.17342) as a defense: a cautionary baseline, implanted without training.

Before a LayerNorm its vertical part changes nothing, so that the model stays exact and the table stays public up to the
mean of a row. Before an RMSNorm, which keeps the mean, it changes the model, and nothing here repairs that.
"""

import time
from pathlib import Path

import torch

from smd_research.core.errors import ConfigError
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.defenses.base import NO_TEXT, PublicText
from smd_research.defenses.shaking.code import KeyedCode
from smd_research.defenses.shaking.deployment import SHOWS, TUNING_SHOWS, KeyedPrepared
from smd_research.defenses.tunable import Tunable
from smd_research.mechanisms.shaking.parameters import SentinelParameters
from smd_research.mechanisms.shaking.sentinel import glides, pairwise_swap, seed_of
from smd_research.models.bundle import Bundle
from smd_research.models.tables import input_table, output_head, with_tables

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_PASSKEY_LENGTH = 16


class Sentinel(Tunable):
    """SentinelLMs' construction.

    Args:
        passkey: any text, which the record of a run then holds; None: from the seed of the run.
        glides: glide reflections of the table, from 0.

    Raises:
        ConfigError: for a value out of range.
    """

    def __init__(self, passkey: str | None = None, glides: int = 1) -> None:
        if glides < 0:
            raise ConfigError(f"defense.glides={glides} is out of range: it counts from 0")
        self._passkey = passkey
        self.glides = glides

    @property
    def shows(self) -> frozenset[Observable]:
        return SHOWS

    @property
    def tuning_shows(self) -> frozenset[Observable]:
        return TUNING_SHOWS

    def prepare(
        self, bundle: Bundle, public_text: PublicText = NO_TEXT, seed: int = 0, folder: Path | None = None
    ) -> KeyedPrepared:
        """Swap and reflect the rows of the input table, swap those of the head; nothing is trained.

        Args:
            bundle: the public model.
            public_text: not used.
            seed: of the passkey, unless it is given.
            folder: not used: there is nothing long to keep.

        Raises:
            UnsupportedModelError: for a model without a separable embedding or a linear head.
        """
        began = time.perf_counter()
        drawn = generator(seed, "sentinel", "passkey").choice(list(_LETTERS), _PASSKEY_LENGTH)
        number = seed_of("".join(drawn) if self._passkey is None else self._passkey)
        table, head = input_table(bundle).detach(), output_head(bundle)
        code = pairwise_swap(number, bundle.geometry.vocab, bundle.special_ids)
        order = torch.from_numpy(code.plain_of).to(table.device)
        keyed = time.perf_counter()
        moved = torch.from_numpy(glides(table.cpu().double().numpy(), number, self.glides)).to(table.device)
        bias = None if head.bias is None else head.bias.detach()[order]
        served = with_tables(bundle, moved[order], head.weight.detach()[order], bias)
        return KeyedPrepared(
            bundle=bundle,
            public=served,
            base=bundle,
            parameters=(SentinelParameters(self.glides),),
            shows=self.shows,
            tuning_shows=self.tuning_shows,
            seed=seed,
            code=KeyedCode(code),
            seconds={"key": keyed - began, "implant": time.perf_counter() - keyed},
            flops={"key": 0.0, "implant": 0.0},
        )
