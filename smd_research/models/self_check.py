"""Whether a model comes out of its hooks as it went in: measured on the model itself before anything relies on it.

What a family does with positions, masks and caches cannot be read off its configuration, and a wrong guess gives
numbers that look right. So some two dozen tokens are run through the stock model and through stretches of its blocks,
in one pass and token by token, and whatever differs is refused by name. Windows and chunks are shortened on a copy so
that these tokens cross several; small models are checked in fp32 with weights large enough that attention matters.
"""

import hashlib
import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from smd_research.core.errors import LabError, UnsupportedModelError
from smd_research.models.attention import AttentionSpec, LocalAttention, QueryFirstRuntime
from smd_research.models.bundle import Bundle
from smd_research.models.decoding import StockDecoder
from smd_research.models.families import family_of
from smd_research.models.lean_decode import LeanDecode
from smd_research.models.stretch import Stretch
from smd_research.models.structure import sharing_copy

TOKENS, STEPS, CUT_STEPS, REACH = 24, 8, 2, 6
"""Tokens of the check, how many come one by one, how many at a cut, and what windows and chunks are shortened to."""

_REACHES = ("sliding_window", "attention_chunk_size")
"""Attributes of modules and configurations that are read at every forward pass; others are built in."""
_BUILT_IN = ("window_size",)
_LONGEST = 2048
_SMALL_COPY = 2**28
"""Parameters' bytes up to which a copy in fp32 is made."""
_FINE, _COARSE = 1e-3, 0.1
"""Largest difference of logits in units of their standard deviation; the coarse one for 16-bit arithmetic."""


def ensure_exact(bundle: Bundle, *cuts: int) -> None:
    """Refuse a model whose hooked blocks do not compute what the stock model does; remembered by structure.

    Args:
        bundle: the model. One that holds modules of this package was derived from a checked one, and passes.
        cuts: blocks before which it is to be cut.

    Raises:
        UnsupportedModelError: naming the family, the check and the error.
    """
    refused = family_of(bundle.family).refused
    if refused:
        raise UnsupportedModelError(f"family '{bundle.family}' is not served: {refused}")
    verdict = _verdict(bundle)
    if verdict is not None:
        verdict.check(bundle, "prefill", "steps", "batch", *(f"cut {cut}" for cut in cuts))


def ensure_plain(bundle: Bundle) -> None:
    """Refuse a model whose own decoding, token by token with a cache, is not what one pass over the text computes.

    Args:
        bundle: the model.

    Raises:
        UnsupportedModelError: naming the family, the check and the error.
    """
    verdict = _verdict(bundle)
    if verdict is not None:
        verdict.check(bundle, "plain decoding")


def lean_serves(bundle: Bundle, first: int) -> bool:
    """Whether a model's lean form computes from block ``first`` on what the stock model does.

    Args:
        bundle: the model. One that holds modules of this package has no lean form.
        first: index of the block; 0 begins with the embedding.
    """
    verdict = _verdict(bundle) if family_of(bundle.family).lean else None
    return verdict is not None and verdict.holds(bundle, f"lean {first}")


_known: dict[str, "_Verdict"] = {}
_seen: "weakref.WeakKeyDictionary[PreTrainedModel, _Verdict | None]" = weakref.WeakKeyDictionary()


def _verdict(bundle: Bundle) -> "_Verdict | None":
    if bundle.model not in _seen:
        packages = {type(module).__module__.partition(".")[0] for module in bundle.model.modules()}
        derived = __name__.partition(".")[0] in packages
        _seen[bundle.model] = None if derived else _known.setdefault(structure_of(bundle), _fresh(bundle))
    return _seen[bundle.model]


def _fresh(bundle: Bundle) -> "_Verdict":
    return _Verdict(bundle.family, _FINE if _copied(bundle.model) else tolerance(bundle.dtype))


def tolerance(dtype: torch.dtype) -> float:
    """Largest difference of logits, in units of their standard deviation, that arithmetic of a type explains."""
    return _FINE if dtype in (torch.float32, torch.float64) else _COARSE


def structure_of(bundle: Bundle) -> str:
    """A digest of everything about a model but the values of its weights."""
    model = bundle.model
    digest = hashlib.sha256(model.config.to_json_string(use_diff=False).encode())
    digest.update(f"{type(model).__module__}.{type(model).__qualname__} {bundle.device.type}".encode())
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
    return digest.hexdigest()


@dataclass
class _Verdict:
    """What is known of one structure.

    Attributes:
        family: what refusals call it.
        allowed: largest error that rounding explains.
        errors: by check; a text says what went wrong instead.
    """

    family: str
    allowed: float
    errors: dict[str, float | str] = field(default_factory=dict)

    def check(self, bundle: Bundle, *names: str) -> None:
        """Run the checks that were not run yet.

        Raises:
            UnsupportedModelError: for the first that fails, now or before.
        """
        subject = _Subject(bundle)
        for name in names:
            error = self._error(subject, name)
            if isinstance(error, float) and math.isnan(error):
                raise UnsupportedModelError(
                    f"{bundle.name} computes logits that are no numbers: its weights are damaged"
                )
            if isinstance(error, str):
                raise UnsupportedModelError(f"family '{self.family}' is not served: its check of {name} fails, {error}")
            if error > self.allowed:
                raise UnsupportedModelError(
                    f"family '{self.family}' is not served, for it would not be exact: in the check of {name} logits "
                    f"differ from the stock model's by {error:.2g} standard deviations ({self.allowed:g} allowed)"
                )

    def holds(self, bundle: Bundle, name: str) -> bool:
        """Whether a check passes, of which nothing is refused."""
        error = self._error(_Subject(bundle), name)
        return isinstance(error, float) and error <= self.allowed

    def _error(self, subject: "_Subject", name: str) -> float | str:
        """What a check measures; one that was run before is not run again."""
        if name in self.errors:
            return self.errors[name]
        error = _measured(subject, name)
        if not (isinstance(error, float) and math.isnan(error)):  # which is of the weights, not of the structure
            self.errors[name] = error
        return error


def _measured(subject: "_Subject", name: str) -> float | str:
    checks: dict[str, Callable[[], float]] = {
        "prefill": subject.prefill,
        "steps": subject.steps,
        "batch": subject.batch,
        "plain decoding": subject.plain_decoding,
    }
    at: dict[str, Callable[[int], float]] = {"cut": subject.cut, "lean": subject.lean}
    kind, _, block = name.partition(" ")
    try:
        return at[kind](int(block)) if kind in at else checks[name]()
    except LabError as error:
        return str(error)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a family raises when it is run in parts
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {lines[0][:160]}"


class _Subject:
    """What is checked: a copy with short windows, its tokens, and what the stock model makes of them."""

    def __init__(self, bundle: Bundle) -> None:
        self._original = bundle

    @cached_property
    def bundle(self) -> Bundle:
        return _ready(self._original)

    @cached_property
    def ids(self) -> Tensor:
        """Tokens ``[1, rows]``: no special ones, and enough to leave a window that cannot be shortened."""
        bundle = self.bundle
        built_in = _largest(bundle.model, _BUILT_IN)
        rows = min(TOKENS if built_in is None else max(TOKENS, built_in + STEPS), _LONGEST, bundle.geometry.context)
        words = [i for i in range(bundle.geometry.vocab) if i not in bundle.special_ids] if rows else []
        chosen = torch.randint(len(words), (rows,), generator=torch.Generator().manual_seed(0))
        return torch.tensor([[words[i] for i in chosen.tolist()]], device=bundle.device)

    @cached_property
    @torch.inference_mode()
    def stock(self) -> Tensor:
        """Logits ``[rows, vocab]`` of the stock model in one pass."""
        logits: Tensor = self.bundle.model(input_ids=self.ids, use_cache=False).logits[0].float()
        return logits

    def error(self, logits: Tensor, rows: slice = slice(None)) -> float:
        """Largest difference from the stock model's logits in units of their standard deviation."""
        return float((logits.float() - self.stock[rows]).abs().max() / self.stock.std())

    def prefill(self) -> float:
        return self.error(_run(Stretch(self.bundle), LocalAttention(), 0, self.ids)[0])

    def steps(self) -> float:
        return self.error(_stepwise([Stretch(self.bundle)], self.ids, STEPS))

    def cut(self, block: int) -> float:
        parts = [Stretch(self.bundle, None, block), Stretch(self.bundle, block)]
        return self.error(_stepwise(parts, self.ids, CUT_STEPS))

    def batch(self) -> float:
        """Two streams at different places in one step, as a provider of many users runs them."""
        model = Stretch(self.bundle)
        return self._in_step(lambda streams, where, ids: model.forward(streams, where, ids=ids))

    def lean(self, first: int) -> float:
        """The same through the lean form, which begins at a block."""
        lean = LeanDecode(self.bundle, first or None)
        below = Stretch(self.bundle, None, first) if first else None

        def step(streams: _Streams, where: Tensor, ids: Tensor) -> Tensor:
            hidden = below.forward(streams, where, ids=ids) if below else None
            return lean.forward(streams, where, ids=ids, hidden=hidden)

        return self._in_step(step)

    def _in_step(self, step: "Callable[[_Streams, Tensor, Tensor], Tensor]") -> float:
        """The error of two streams at different places that make a step together."""
        model, rows = Stretch(self.bundle), self.ids.shape[1]
        places = (rows - 1, rows // 2)
        streams = _Streams()
        for place in places:
            streams.stores.append(store := LocalAttention())
            _run(model, store, 0, self.ids[:, :place])
        last = torch.cat([self.ids[:, place] for place in places])[:, None]
        where = torch.tensor([[place] for place in places], device=last.device)
        logits = step(streams, where, last)[:, 0]
        return max(self.error(one, slice(place, place + 1)) for one, place in zip(logits, places, strict=True))

    def plain_decoding(self) -> float:
        decoder, parts = StockDecoder(self.bundle), _parts(self.ids, STEPS)
        logits = torch.stack([decoder.step(part) for _, part in parts])
        return self.error(logits, slice(self.ids.shape[1] - STEPS - 1, None))


class _Streams(QueryFirstRuntime):
    """Attention of one new token in each of several streams, whose caches have different lengths."""

    def __init__(self) -> None:
        self.stores: list[LocalAttention] = []

    def enter(self) -> None:
        pass

    def ask(self, layer: int, q: Tensor, spec: AttentionSpec) -> None:
        pass

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        rows = [slice(i, i + 1) for i in range(len(self.stores))]
        parts = zip(self.stores, rows, positions, strict=True)
        return torch.cat([own.attend(layer, q[i], k[i], v[i], where, spec) for own, i, where in parts])


def _parts(ids: Tensor, steps: int) -> list[tuple[int, Tensor]]:
    """A text ``[1, rows]`` cut into its beginning and ``steps`` single tokens, each with its position."""
    known = ids.shape[1] - steps
    return [(0, ids[:, :known]), *((place, ids[:, place : place + 1]) for place in range(known, ids.shape[1]))]


def _run(model: Stretch, attention: LocalAttention, start: int, rows: Tensor) -> Tensor:
    """Outputs ``[1, rows, ...]`` of a stretch for token ids, or hidden states, that begin at a position."""
    positions = torch.arange(start, start + rows.shape[1], device=rows.device)
    if rows.is_floating_point():
        return model.forward(attention, positions, hidden=rows)
    return model.forward(attention, positions, ids=rows)


def _stepwise(stretches: Sequence[Stretch], ids: Tensor, steps: int) -> Tensor:
    """Logits ``[rows, vocab]`` of stretches one after the other, the last ``steps`` tokens one by one."""
    attentions = [LocalAttention() for _ in stretches]
    logits: list[Tensor] = []
    for start, out in _parts(ids, steps):
        for stretch, attention in zip(stretches, attentions, strict=True):
            out = _run(stretch, attention, start, out)
        logits.append(out[0])
    return torch.cat(logits)


# -- the copy that is checked ----------------------------------------------------------------------------------------


def _ready(bundle: Bundle) -> Bundle:
    """The model with short windows and, where a copy is small, in fp32 with lively weights."""
    model = sharing_copy(bundle.model)
    for holder in _holders(model):
        for name in _REACHES:
            value = getattr(holder, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and value > REACH:
                setattr(holder, name, REACH)
    if _copied(bundle.model):
        enliven(model)
    return replace(bundle, model=model)


def _copied(model: PreTrainedModel) -> bool:
    """Whether a model is small enough for a copy in fp32."""
    elements: int = sum(parameter.numel() for parameter in model.parameters())
    return 4 * elements <= _SMALL_COPY


def _holders(model: PreTrainedModel) -> list[Any]:
    """Modules and their configurations, each once."""
    configs = {id(c): c for module in model.modules() if (c := getattr(module, "config", None)) is not None}
    return [*model.modules(), *configs.values()]


def _largest(model: PreTrainedModel, names: Sequence[str]) -> int | None:
    values = (getattr(holder, name, None) for holder in _holders(model) for name in names)
    return max((value for value in values if isinstance(value, int)), default=None)


@torch.no_grad()
def enliven(model: PreTrainedModel) -> None:
    """Give a model weights of its own in fp32, its matrices at least of the size that keeps what they multiply.

    Freshly initialised weights are so small that attention is nearly uniform: it would hide a wrong mask or angle.

    Args:
        model: changed in place; tensors that it shares with others are not.
    """
    fresh: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in fresh:
                weight = parameter.detach().float()
                if weight.dim() > 1:
                    weight = weight * max(1.0, float(weight.shape[-1] ** -0.5 / weight.std().clamp_min(1e-12)))
                fresh[id(parameter)] = nn.Parameter(weight.clone(), requires_grad=False)
            setattr(module, name, fresh[id(parameter)])
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                module.register_buffer(name, buffer.float(), persistent=name not in module._non_persistent_buffers_set)
