"""Rotary embedding by position: what queries and keys that were taken at position 0 would be elsewhere.

Families turn pairs of dimensions by angles that their rotary module computes; they differ in which dimensions make a
pair, in which part of a head is turned, in whether a norm follows, in layers that are not turned at all or by angles of
their own. None of this is taken from names: each layer is run at two positions on hidden states that are the same, and
the way of turning that explains what came out is the layer's. Where none does, there is no such way, and whoever needs
one is told.
"""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from smd_research.core.errors import UnsupportedModelError
from smd_research.models.attention import AttentionSpec, KVStore, SharedPrefixAttention
from smd_research.models.bundle import Bundle
from smd_research.models.stretch import Stretch
from smd_research.models.structure import blocks_of, rotaries_of

Layout = Literal["halves", "neighbours"]
"""Which dimensions make a pair: ``i`` and ``i + n / 2`` of the ``n`` that turn (Llama), or ``2 i`` and ``2 i + 1``."""

Angles = Callable[[Tensor], Tensor]
"""Positions ``[rows]`` -> complex factors of the pairs ``[rows, n / 2]``, of modulus 1 but for a scale."""

_PROBES = 24
_NEAR, _FAR = 7, 4095
"""Where a layer is looked at: near, so that fast angles have not gone round, and as far as the context goes."""
_TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-6}
_COARSE = 4e-2
"""Largest error of a turned key, relative to the largest key; for 16-bit types the coarse one."""


@dataclass(frozen=True)
class Turn:
    """How queries or keys of a layer are turned.

    Attributes:
        angles: by position; None when they are the same everywhere.
        layout: which dimensions make a pair.
        start: the first dimension that turns.
        backwards: whether angles count the other way round (or sines come before cosines).
        gain: of a norm that follows the rotation ``[head_dim]``, or None.
    """

    angles: Angles | None = None
    layout: Layout = "halves"
    start: int = 0
    backwards: bool = False
    gain: Tensor | None = None

    def __call__(self, x: Tensor, positions: Tensor) -> Tensor:
        """Turn what was taken at position 0.

        Args:
            x: ``[..., rows, head_dim]``.
            positions: absolute ``[rows]``.
        """
        if self.angles is None or self.gain is None:
            return self._rotated(x, positions, self.backwards)
        return self._rotated(x / self.gain, positions, self.backwards) * self.gain

    def adjoint(self, y: Tensor, positions: Tensor) -> Tensor:
        """Vectors that meet what is taken at position 0 as ``y`` meets it when it is turned there.

        The dot products ``x . adjoint(y)`` and ``turn(x) . y`` are the same.

        Args:
            y: ``[..., rows, head_dim]``.
            positions: absolute ``[rows]``.
        """
        if self.angles is None or self.gain is None:
            return self._rotated(y, positions, not self.backwards)
        return self._rotated(y * self.gain, positions, not self.backwards) / self.gain

    def _rotated(self, x: Tensor, positions: Tensor, backwards: bool) -> Tensor:
        if self.angles is None:
            return x
        here, at_zero = self.angles(positions), self.angles(torch.zeros_like(positions[:1]))
        factors = (here / at_zero).to(torch.complex64 if x.dtype != torch.float64 else torch.complex128)
        cos, sin = factors.real.to(x.dtype), (-factors.imag if backwards else factors.imag).to(x.dtype)
        end = self.start + 2 * cos.shape[-1]
        turned = self._turned(x[..., self.start : end], cos, sin)
        return torch.cat((x[..., : self.start], turned, x[..., end:]), dim=-1)

    def _turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        if self.layout == "halves":
            a, b = x.chunk(2, dim=-1)
            return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
        a, b = x[..., ::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)


@dataclass(frozen=True)
class LayerTurns:
    """How a layer turns its queries and its keys; None where no way was found."""

    queries: Turn | None
    keys: Turn | None


class Rotation:
    """How the layers ``0 .. upto`` of a model turn queries and keys.

    Args:
        bundle: the model.
        upto: how many layers are looked at.
    """

    def __init__(self, bundle: Bundle, upto: int) -> None:
        self._name = bundle.name
        self._family = bundle.family
        seen = _Looked(bundle, upto)
        self.layers = tuple(seen.turns(layer) for layer in range(upto))

    @property
    def known(self) -> bool:
        """Whether every layer's way was found."""
        return all(turns.queries and turns.keys for turns in self.layers)

    def ensure_known(self, first: int) -> None:
        """Refuse a model whose layers from ``first`` on do not all turn in a way that was found.

        Raises:
            UnsupportedModelError: naming the first of them.
        """
        for layer, turns in enumerate(self.layers[first:], start=first):
            self._of(layer, turns.queries)
            self._of(layer, turns.keys)

    def queries(self, layer: int, x: Tensor, positions: Tensor) -> Tensor:
        """Queries ``[..., rows, head_dim]`` of a layer, taken at position 0, as they are at ``positions [rows]``.

        Raises:
            UnsupportedModelError: when no way of turning them was found.
        """
        return self._of(layer, self.layers[layer].queries)(x, positions)

    def keys(self, layer: int, x: Tensor, positions: Tensor) -> Tensor:
        """Keys ``[..., rows, head_dim]`` of a layer, taken at position 0, as they are at ``positions [rows]``.

        Raises:
            UnsupportedModelError: when no way of turning them was found.
        """
        return self._of(layer, self.layers[layer].keys)(x, positions)

    def back(self, layer: int, queries: Tensor, positions: Tensor) -> Tensor:
        """Vectors that meet a layer's keys at position 0 as queries ``[..., rows, head_dim]`` meet them elsewhere.

        Args:
            layer: whose keys.
            queries: as they are at their own positions.
            positions: of the keys, absolute ``[rows]``.

        Raises:
            UnsupportedModelError: when no way of turning the keys was found.
        """
        return self._of(layer, self.layers[layer].keys).adjoint(queries, positions)

    def _of(self, layer: int, turn: Turn | None) -> Turn:
        if turn is None:
            raise UnsupportedModelError(
                f"family '{self._family}' ({self._name}): how layer {layer} makes queries and keys depend on their "
                "position is not known, so they cannot be moved from one position to another"
            )
        return turn


_rotations: "weakref.WeakKeyDictionary[PreTrainedModel, dict[int, Rotation]]" = weakref.WeakKeyDictionary()


def rotation_of(bundle: Bundle, upto: int) -> Rotation:
    """How the first ``upto`` layers of a model turn queries and keys, looked at once."""
    of_model = _rotations.setdefault(bundle.model, {})
    if upto not in of_model:
        of_model[upto] = Rotation(bundle, upto)
    return of_model[upto]


class _Lone(SharedPrefixAttention):
    """Attention of tokens that stand alone, which no position changes; keeps each layer's queries and keys."""

    def __init__(self) -> None:
        super().__init__(KVStore())
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        self.seen[layer] = q, k
        return super().attend(layer, q, k, v, positions, spec)


class _Looked:
    """Queries and keys of the same hidden states at several positions, and the angles that were asked for meanwhile."""

    def __init__(self, bundle: Bundle, upto: int) -> None:
        self._bundle = bundle
        # 0 last: what the rotary module was asked for is kept from the first run
        self.places = tuple(dict.fromkeys((_NEAR, min(_FAR, bundle.geometry.context - 1), 0)))
        vocabulary = bundle.geometry.vocab
        ids = torch.arange(_PROBES, device=bundle.device)[:, None] * 7919 % vocabulary
        zero = torch.zeros(1, dtype=torch.long, device=bundle.device)
        hidden = Stretch(bundle, None, 0).forward(_Lone(), zero, ids=ids)
        stretch, self.at = Stretch(bundle, 0, upto), {}
        with _angles_asked(stretch.model) as self.sources:
            for place in self.places:
                lone = _Lone()
                stretch.forward(lone, zero + place, hidden=hidden)
                self.at[place] = lone.seen

    def turns(self, layer: int) -> LayerTurns:
        block = blocks_of(self._bundle.model, self._bundle.geometry.layers)[layer]
        return LayerTurns(*(self._turn(layer, which, block) for which in (0, 1)))

    def _turn(self, layer: int, which: int, block: nn.Module) -> Turn | None:
        """The way of turning that explains what the layer did, queries (0) or keys (1)."""
        still = self.at[0][layer][which]
        moved = {place: self.at[place][layer][which] for place in self.places if place}
        device = still.device

        def error(turn: Turn) -> float:
            off = [
                float((turn(still, torch.tensor([place], device=device)) - there).abs().max() / there.abs().max())
                for place, there in moved.items()
            ]
            return max(off)

        allowed = _TOLERANCE.get(still.dtype, _COARSE)
        for turn in self._ways(still.shape[-1], block):
            if error(turn) <= allowed:
                return turn
        return None

    def _ways(self, head_dim: int, block: nn.Module) -> Iterator[Turn]:
        yield Turn()
        for gain, angles in product(_gains(block, head_dim), self.sources):
            width = 2 * angles(torch.zeros(1, dtype=torch.long, device=self._bundle.device)).shape[-1]
            starts = dict.fromkeys((0, head_dim - width)) if width <= head_dim else ()
            layouts: tuple[Layout, ...] = ("halves", "neighbours")
            for start, layout, backwards in product(starts, layouts, (False, True)):
                yield Turn(angles, layout, start, backwards, gain)


def _gains(block: nn.Module, head_dim: int) -> Iterator[Tensor | None]:
    """Gains of norms over a head in a block; None first, for a rotation that nothing follows."""
    yield None
    for module in block.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.shape == (head_dim,):
            yield weight
            yield 1 + weight


class _angles_asked:
    """Collects what a model's rotary modules are asked for, as functions of position."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._handles = [m.register_forward_hook(self._take, with_kwargs=True) for m in rotaries_of(model)]
        self._known: set[tuple[Any, ...]] = set()
        self._sources: list[Angles] = []

    def __enter__(self) -> list[Angles]:
        return self._sources

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _take(self, module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], out: Any) -> None:
        said = (id(module), *(x for x in (*arguments, *options.values()) if not isinstance(x, Tensor)))
        if said in self._known or _factors(out) is None:
            return
        self._known.add(said)

        @torch.inference_mode()
        def factors(positions: Tensor) -> Tensor:
            def moved(x: Any) -> Any:
                if isinstance(x, Tensor) and not x.is_floating_point():
                    return positions.expand(*x.shape[:-2], 1, -1) if x.dim() > 1 else positions
                return x

            found = _factors(module.forward(*map(moved, arguments), **{name: moved(x) for name, x in options.items()}))
            assert found is not None
            return found

        once = _each_once(factors(torch.arange(1, _NEAR, device=next(_tensors(arguments, options)).device)))
        self._sources.append(lambda positions: factors(positions)[..., once])


def _tensors(arguments: tuple[Any, ...], options: dict[str, Any]) -> Iterator[Tensor]:
    return (x for x in (*arguments, *options.values()) if isinstance(x, Tensor))


def _factors(out: Any) -> Tensor | None:
    """Complex factors ``[rows, ...]`` of what a rotary module returned; None when it is nothing of the kind."""
    if isinstance(out, Tensor) and out.is_complex():
        return out.reshape(-1, out.shape[-1])
    if not (isinstance(out, tuple) and len(out) == 2 and all(isinstance(x, Tensor) for x in out)):
        return None
    cos, sin = (x.float().reshape(-1, *x.shape[-2:])[0] if x.dim() > 1 else x for x in out)
    return torch.complex(cos, sin)


def _each_once(factors: Tensor) -> slice:
    """Where each pair's factor stands once: tables hold it twice, by halves or by neighbours, or once."""
    half = factors.shape[-1] // 2
    if torch.equal(factors[..., :half], factors[..., half:]):
        return slice(half)
    if torch.equal(factors[..., ::2], factors[..., 1::2]):
        return slice(0, None, 2)
    return slice(None)
