"""Guesses held against every layer's exchange: the prompt is prefilled again with the public weights.

Layer 0 sees tokens; the layers above see what the tokens mean to each other. A guess that is right reproduces their
replies too, which vouches for tokens that layer 0 cannot tell apart or does not see (a sliding window), and a guess
that is nearly right is mended where they disagree: most doubtful positions first, a few alternatives at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attacks.prompts.partial_attention_inversion.measurements import SIGMAS, UNDISTURBED, Disturbance
from attacks.transcript import Exchanges, Merges
from smd_research.core.guess import Spent
from smd_research.models.attention import KVStore, LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel
from smd_research.models.partial_attention import Partial

# Relative error of a replayed reply that rounding explains, in machine epsilons of the model: blocks of fp32 arithmetic
# in another order stay below 200.
_UNITS = 2048.0
_BATCH_TOKENS = 8192  # prefilled at once


@dataclass(frozen=True)
class Exchange:
    """One layer's queries with their replies, and the noise and rounding that the vault adds to these."""

    seen: Exchanges | Merges
    disturbance: Disturbance = UNDISTURBED

    def units(self, predicted: Partial, rounding: float) -> Tensor:
        """Errors of predicted shards, in units of what rounding and noise explain.

        Args:
            predicted: ``[guesses, heads, steps(, head_dim)]``.
            rounding: relative error that arithmetic explains.

        Returns:
            Of ``l``, and the largest of the coordinates of ``A`` or of the merged rows ``[guesses, 2 * rows]``.
        """
        seen, added = self.seen, self.disturbance
        by_weight, by_average = seen.error(predicted)
        rounding = max(rounding, added.rounding)
        sent = seen.a.double()
        grain = rounding * sent.abs().amax() + SIGMAS * added.average
        slack = torch.tensor(1.0)
        if isinstance(seen, Exchanges):
            slack = rounding * (1 + seen.log_weight.abs().t()) + SIGMAS * added.log_weight
        else:  # noise on l moves the weights of both sides, by a quarter of it at most
            grain = grain + SIGMAS * added.log_weight * (seen.own.a.double() - sent).abs().amax() / 4
        wire = max(torch.finfo(seen.a.dtype).eps, added.rounding)
        off = by_average.cpu().abs() / (grain + wire * sent.abs().transpose(0, 1))
        return torch.cat([(by_weight.cpu().abs() / slack).flatten(1), off.amax(-1).flatten(1)], 1).nan_to_num(0.0)


@dataclass
class Replay:
    """Compares guesses with all layers of a request.

    Attributes:
        bundle: the public model.
        exchanges: by layer.
        public: leading tokens whose keys are not the vault's.
        spent: guesses prefilled and their floating-point operations.
    """

    bundle: Bundle
    exchanges: Mapping[int, Exchange]
    public: Sequence[int] = ()
    spent: Spent = field(default_factory=Spent)

    def __post_init__(self) -> None:
        self._model = HookedModel(self.bundle)
        weights = sum(p.numel() for p in self.bundle.model.parameters())
        self._flops = 2.0 * (weights - self.bundle.embedding.numel())

    @property
    def coarse(self) -> bool:
        """Whether more than the rounding of fp32 is granted: a wrong guess may then be explained too."""
        types = (self.bundle.dtype, *(exchange.seen.a.dtype for exchange in self.exchanges.values()))
        disturbed = any(exchange.disturbance != UNDISTURBED for exchange in self.exchanges.values())
        return disturbed or any(torch.finfo(one).bits < 32 for one in types)

    def errors(self, guesses: Sequence[Sequence[int]]) -> Tensor:
        """Errors of the replayed replies of guesses of one length, in units of what rounding explains.

        Returns:
            ``[guesses, 2]``: the largest error, and the mean of ``log(1 + error^2)``, which a few bad rows do not rule.
        """
        size = max(1, _BATCH_TOKENS // (len(self.public) + len(guesses[0])))
        return torch.cat([self._errors(guesses[i : i + size]) for i in range(0, len(guesses), size)])

    @torch.inference_mode()
    def _errors(self, guesses: Sequence[Sequence[int]]) -> Tensor:
        ids = torch.tensor([[*self.public, *guess] for guess in guesses], device=self.bundle.device)
        store = KVStore(capacity=ids.shape[1])
        where = torch.arange(ids.shape[1], device=ids.device)
        attention = LocalAttention(store)
        self._model.forward(attention, where, ids=ids, last_only=True)
        if self.public:
            store.drop_first(len(self.public))
        self.spent += Spent(len(guesses), self._flops * ids.numel())
        found = [self._layer(store, attention, layer, len(guesses)) for layer in self.exchanges]
        error = torch.cat(found, 1)
        return torch.stack([error.amax(1), error.square().log1p().mean(1)], 1)

    def _layer(self, store: KVStore, attention: LocalAttention, layer: int, guesses: int) -> Tensor:
        """Errors of one layer's rows, as :meth:`Exchange.units` has them."""
        exchange, device = self.exchanges[layer], self.bundle.device
        q = exchange.seen.q.to(device, self.bundle.dtype).transpose(0, 1).expand(guesses, -1, -1, -1)
        predicted = store.partial(layer, q, exchange.seen.positions.to(device), attention.specs[layer])
        return exchange.units(predicted, _UNITS * torch.finfo(self.bundle.dtype).eps)


def mend(
    replay: Replay, ids: Sequence[int], options: Mapping[int, Sequence[int]], budget: int
) -> tuple[list[int], float]:
    """Replace tokens one position at a time while the replayed replies come closer.

    Args:
        replay: compares guesses.
        ids: the guess to start from.
        options: alternatives at doubtful positions, most doubtful first.
        budget: most guesses to prefill.

    Returns:
        The best guess, and its largest error (at most one: explained).
    """
    best, left = list(ids), budget
    largest, energy = replay.errors([best])[0].tolist()
    moved = True
    while moved and largest > 1:
        moved = False
        for position, tokens in options.items():
            others = [token for token in tokens if token != best[position]][:left]
            if not others or largest <= 1:
                continue
            left -= len(others)
            errors = replay.errors([[*best[:position], token, *best[position + 1 :]] for token in others])
            index = int(errors[:, 1].argmin())
            if float(errors[index, 1]) < energy:
                largest, energy = errors[index].tolist()
                best[position], moved = others[index], True
    return best, largest
