"""Guess and verify: every candidate for a hidden value is prefilled and compared with the recorded partial attention.

The provider of secure multi-party decoding knows weights, queries and replies. It cannot read a guess off them, but it
can test one: prefill the guessed prompt, answer the recorded queries, compare. A secret of low entropy (a name from a
register, in a known template) falls to exhaustive search (arXiv 2409.19134, abstracts of v1 to v4: the reconstruction
that prompt obfuscation is there to cap; here by the transcript's own verifier, not by output text).
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attacks.base import Public, Template, TemplateAttack
from attacks.transcript import Exchanges, Merges, answered, public_prefix
from smd_research.boundary import AdversaryView
from smd_research.core.errors import ConfigError
from smd_research.core.guess import Guess, Spent
from smd_research.core.observable import Observable
from smd_research.models.attention import AttentionSpec, KVStore, LocalAttention, visible
from smd_research.models.hooked import HookedModel
from smd_research.models.partial_attention import Partial, partial_attention

# What rounding explains, in units of the machine epsilon of the vault's arithmetic times the size of the compared
# numbers; a wrong candidate that differs in one token is 10^3 and more of these away.
_ROUNDING_UNITS = 64.0
_CLEARLY = 10.0


class GuessAndVerify(TemplateAttack):
    """Exhaustive search over a register, verified against the replies of several layers.

    Threat model: passive provider, known template. Each candidate is scored by the
    likelihood of its prediction errors of ``l = m + log g`` and ``A`` in every layer, with an error scale a layer and
    kind that is unknown (profiled out) but never below rounding: so one score serves exact replies, a 16-bit wire,
    replies of fewer bits and noise. The first layer seen orders all candidates, the others decide among the best. The
    guess is certified when all its errors are at rounding and those of the runner-up are not. Of several streams, one
    taken at random is attacked.

    Args:
        secret: type of the hidden value.
        candidates: length of the register.
        layers: how many layers are compared, from the first one whose queries reach the vault.
        finalists: candidates that are compared in more than the first of them.
        chunk: candidates prefilled at once.
        ranked: candidates reported.

    Raises:
        ConfigError: for a number below one.
    """

    needs: ClassVar[frozenset[Observable]] = frozenset({Observable.QUERIES})

    def __init__(
        self,
        secret: str = "name",
        candidates: int = 1000,
        layers: int = 3,
        finalists: int = 32,
        chunk: int = 128,
        ranked: int = 10,
    ) -> None:
        numbers = {"candidates": candidates, "layers": layers, "finalists": finalists, "chunk": chunk, "ranked": ranked}
        for name, value in numbers.items():
            if value < 1:
                raise ConfigError(f"attack.{name}={value} is out of range: give at least 1")
        self.secret = secret
        self.candidates = candidates
        self._layers = layers
        self._finalists = finalists
        self._chunk = chunk
        self._ranked = ranked

    def fit(self, public: Public) -> None:
        super().fit(public)
        self._models: dict[int, HookedModel] = {}

    @torch.inference_mode()
    def fill(self, view: AdversaryView, template: Template, rng: np.random.Generator) -> Guess:
        alone = view if view.streams == 1 else view.stream(int(rng.integers(view.streams)))
        seen = list(answered(alone).items())[: self._layers]
        if not seen:  # the first token ended the text: the provider was never asked to decode
            return Guess((-1,) * len(template.ids), certified=False)
        public = public_prefix(alone)
        order, units = self._order(template, template.candidates, dict(seen[:1]), public)
        if len(seen) > 1:
            best = [template.candidates[i] for i in order[: self._finalists]]
            again, units = self._order(template, best, dict(seen), public)
            order = [order[i] for i in again] + order[self._finalists :]
        return self._guess(template, order, units)

    def _order(
        self, template: Template, values: Sequence[tuple[int, ...]], seen: Mapping[int, Exchanges | Merges], public: int
    ) -> tuple[list[int], list[float]]:
        """Candidates, most likely first, and in that order their largest errors in units of what rounding explains."""
        stores = self._prefilled(template, values, max(seen))
        errors = torch.cat([_errors(store, specs, seen, public) for store, specs in stores])
        floors = torch.stack([self._floors(found) for found in seen.values()])
        numbers = torch.tensor([[found.q[..., 0].numel(), found.a.numel()] for found in seen.values()])
        score = (numbers * errors.clamp(min=floors).log()).sum((1, 2))
        order = score.sort(stable=True).indices
        return order.tolist(), (errors / floors).amax((1, 2))[order].tolist()

    def _prefilled(
        self, template: Template, values: Sequence[tuple[int, ...]], last: int
    ) -> Iterator[tuple[KVStore, Mapping[int, AttentionSpec]]]:
        """Keys and values of layers ``0 .. last`` under each value of the gap, a chunk of values at a time.

        What precedes the gap is prefilled once; what follows sees the value and is run for each.
        """
        if last not in self._models:
            self._models[last] = HookedModel(self.public.bundle, None, last + 1)
        device, start, n = self.public.bundle.device, template.start, len(template.ids)
        before = _UpTo(KVStore(capacity=n), last)
        if start:
            before.run(self._models[last], torch.tensor([template.ids[:start]], device=device), 0)
        after = torch.tensor(template.ids[template.end :], dtype=torch.long, device=device)
        for chunk in torch.split(torch.tensor(values, device=device), self._chunk):
            store = before.store.copy()
            store.select(torch.zeros(len(chunk), dtype=torch.long, device=device))
            attention = _UpTo(store, last)
            attention.run(self._models[last], torch.cat([chunk, after.expand(len(chunk), -1)], 1), start)
            yield store, attention.specs

    def _floors(self, seen: Exchanges | Merges) -> Tensor:
        """Root mean square errors that rounding explains ``[2]``: of ``l`` and of ``A``."""
        computed = _ROUNDING_UNITS * torch.finfo(self.public.bundle.dtype).eps
        log_weight = seen.log_weight if isinstance(seen, Exchanges) else seen.own.log_weight
        l_size, a_size = log_weight.double().abs().amax(), seen.a.double().abs().amax()
        on_wire = torch.finfo(seen.a.dtype).eps / 2 * seen.a.double().square().mean().sqrt()
        return torch.stack([computed * (1 + l_size), computed * a_size + on_wire]).cpu()

    def _guess(self, template: Template, order: Sequence[int], units: Sequence[float]) -> Guess:
        n, (start, end) = len(template.ids), (template.start, template.end)
        best = [template.candidates[i] for i in order[: self._ranked]]
        inside = [tuple(dict.fromkeys(value[at] for value in best)) for at in range(end - start)]
        alone = len(units) == 1 or units[1] > _CLEARLY
        return Guess(
            ids=(*[-1] * start, *best[0], *[-1] * (n - end)),
            ranked=(*[()] * start, *inside, *[()] * (n - end)),
            certified=units[0] <= 1 and alone,
            residual=units[0],
            spent=Spent(candidates=len(template.candidates)),
            choices=tuple(order),
        )


class _LastKeysError(Exception):
    """The last layer's keys are known: nothing after them is needed."""


class _UpTo(LocalAttention):
    """Causal attention that ends the forward pass once it has the keys and values of layer ``last``."""

    def __init__(self, store: KVStore, last: int) -> None:
        super().__init__(store)
        self._last = last

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        if layer < self._last:
            return super().attend(layer, q, k, v, positions, spec)
        self.specs[layer] = spec
        self.store.append(layer, k, v, positions)
        raise _LastKeysError

    def run(self, model: HookedModel, ids: Tensor, position: int) -> None:
        """Process ``ids [batch, rows]`` from an absolute position on."""
        with contextlib.suppress(_LastKeysError):
            model.forward(self, torch.arange(position, position + ids.shape[1], device=ids.device), ids=ids)


def _errors(
    store: KVStore, specs: Mapping[int, AttentionSpec], seen: Mapping[int, Exchanges | Merges], public: int
) -> Tensor:
    """Root mean square prediction errors ``[candidates, layers, 2]`` of ``l`` and ``A``."""
    return torch.stack([_layer_errors(store, layer, specs[layer], found, public) for layer, found in seen.items()], 1)


def _layer_errors(store: KVStore, layer: int, spec: AttentionSpec, seen: Exchanges | Merges, public: int) -> Tensor:
    k, v, key_positions = store.get(layer)
    positions = seen.positions.to(k.device)
    q = seen.q.to(k).transpose(0, 1).expand(len(k), -1, -1, -1)
    mask = visible(positions, key_positions[public:], spec)
    predicted: Partial = partial_attention(q, k[:, :, public:], v[:, :, public:], spec.scale, spec.softcap, mask)
    return torch.stack([off.square().flatten(1).mean(1).sqrt() for off in seen.error(predicted)], 1).cpu()
