"""Which linear layers keep a part secret, and how large a part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from smd_research.core.errors import ConfigError
from smd_research.defenses.slip.sensitivity import loss_increases
from smd_research.mechanisms.decomposition.splits import KINDS, Kind, energy_rank
from smd_research.models.bundle import Bundle
from smd_research.models.linears import Place, linear_layers, place_of, weight_of

Rule = Literal["fixed", "energy", "budget"]

_PARTS = {"attention": ("q", "k", "v", "qkv", "o"), "mlp": ("gate", "up", "gate_up", "down")}
_GROUPS = {**_PARTS, "qk": ("q", "k"), "vo": ("v", "o")}


@dataclass(frozen=True)
class SplitSpec:
    """A choice of layers and ranks.

    Attributes:
        targets: ``all``, ``attention``, ``mlp``, ``qk``, ``vo``, a matrix (``q k v qkv o gate up gate_up down``), a
            module name, or several of these joined by ``+``.
        blocks: indices of the blocks that have targets; None: all blocks.
        rank: ``k`` of the fixed rule, and of each layer that the budget pays for.
        rule: ``fixed``: every target keeps ``rank`` components; ``energy``: the fewest that hold a share ``energy`` of
            the squared singular values; ``budget``: targets are bought greedily, those first whose secret part raises
            the loss most for each of its parameters, while the budget lasts.
        energy: share of the energy rule.
        budget: of the budget rule: secret parameters as a share of all parameters of linear layers.
        kind: of the split.
    """

    targets: str = "all"
    blocks: Sequence[int] | None = None
    rank: int = 8
    rule: Rule = "fixed"
    energy: float = 0.5
    budget: float = 0.01
    kind: Kind = "svd"

    def __post_init__(self) -> None:
        for name, value, known in (("rule", self.rule, get_args(Rule)), ("split", self.kind, KINDS)):
            if value not in known:
                raise ConfigError(f"{name}={value} is unknown: use one of {', '.join(known)}")
        if self.rank < 0:
            raise ConfigError(f"rank={self.rank}: give 0 or more")
        if not 0 < self.energy <= 1:
            raise ConfigError(f"energy={self.energy}: give a share above 0 and at most 1")
        if not 0 < self.budget <= 1:
            raise ConfigError(f"budget={self.budget}: give a share above 0 and at most 1")

    def ranks(self, bundle: Bundle, corpus: Sequence[Sequence[int]] = ()) -> dict[str, int]:
        """Secret components of every linear layer, 0 where it is no target, in the order of the model.

        Args:
            bundle: the model.
            corpus: token ids of public text; only the budget rule reads it.

        Raises:
            ConfigError: when the targets select nothing, a rank is above what a matrix has, or the budget rule has no
                text.
            UnsupportedModelError: for a model that cannot be split.
        """
        layers = linear_layers(bundle)
        chosen = self._chosen(layers, bundle)
        if self.rule == "energy":
            ranks = {name: energy_rank(weight_of(layers[name]), self.energy) for name in chosen}
        else:
            ranks = dict.fromkeys(chosen, self.rank)
            self._check(ranks, layers)
            if self.rule == "budget":
                ranks = self._bought(ranks, bundle, corpus)
        return {name: ranks.get(name, 0) for name in layers}

    def _chosen(self, layers: Mapping[str, nn.Module], bundle: Bundle) -> list[str]:
        if self.blocks is not None:
            strange = [index for index in self.blocks if not 0 <= index < bundle.geometry.layers]
            if strange or not self.blocks:
                raise ConfigError(
                    f"blocks={list(self.blocks)}: give some of 0 to {bundle.geometry.layers - 1}, the blocks of "
                    f"{bundle.name}, or null for all"
                )
        places = {name: place_of(name) for name in layers}
        words = self.targets.split("+")
        for word in words:
            if not any(_fits(word, name, place) for name, place in places.items()):
                there = sorted({place.matrix for place in places.values()})
                raise ConfigError(
                    f"targets={word} selects nothing in {bundle.name}: use all, attention, mlp, qk, vo, a matrix "
                    f"({', '.join(there)}) or a module name like {next(iter(layers))}"
                )
        chosen = [
            name
            for name, place in places.items()
            if (self.blocks is None or place.block in self.blocks) and any(_fits(word, name, place) for word in words)
        ]
        if not chosen:
            raise ConfigError(f"targets={self.targets} selects nothing in blocks={self.blocks}: name its block as well")
        return chosen

    def _check(self, ranks: Mapping[str, int], layers: Mapping[str, nn.Module]) -> None:
        for name, rank in ranks.items():
            shape = weight_of(layers[name]).shape
            if rank > min(shape):
                raise ConfigError(
                    f"rank={rank}: '{name}' is {shape[0]} x {shape[1]} and has {min(shape)} singular values; lower rank"
                )

    def _bought(self, ranks: Mapping[str, int], bundle: Bundle, corpus: Sequence[Sequence[int]]) -> dict[str, int]:
        layers = linear_layers(bundle)
        purse = self.budget * sum(weight_of(layer).numel() for layer in layers.values())
        price = {name: rank * sum(weight_of(layers[name]).shape) for name, rank in ranks.items()}
        gain = loss_increases(bundle, ranks, self.kind, corpus)
        bought: dict[str, int] = {}
        for name in sorted(ranks, key=lambda name: gain[name] / max(price[name], 1), reverse=True):
            if price[name] <= purse:
                bought[name] = ranks[name]
                purse -= price[name]
        if not bought:
            raise ConfigError(
                f"budget={self.budget} of the parameters pays for no target at rank={self.rank}: raise it or lower rank"
            )
        return bought


def _fits(word: str, name: str, place: Place) -> bool:
    return word in ("all", name, place.part, place.matrix) or place.matrix in _GROUPS.get(word, ())
