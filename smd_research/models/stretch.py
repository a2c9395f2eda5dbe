"""Run any stretch of a stock model's blocks with an attention runtime in place of its attention.

The stock modules are shared, never touched: a stretch is a structural copy whose parameters are the same tensors.
Families that go through the transformers attention interface are reached there; one that bypasses it, where its record
says (``OwnAttention``). Blocks outside the stretch stay in their places, so that nothing that counts blocks is misled:
those before it hand on what they are given, and the forward pass ends where those after it begin. Masks are not asked
of transformers: the runtime masks by absolute position. Whether all this is what the stock model computes is not
assumed but measured (``models.self_check``).
"""

import contextlib
import weakref
from collections.abc import Mapping
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from smd_research.core.errors import UnsupportedModelError
from smd_research.models.attention import AttentionRuntime, AttentionSpec, QueryFirstRuntime
from smd_research.models.bundle import Bundle
from smd_research.models.families import OwnAttention, family_of
from smd_research.models.query_first import QueriesTaken, has_separate_projections, run_queries_first
from smd_research.models.structure import blocks_of, sharing_copy

_forms: "weakref.WeakKeyDictionary[PreTrainedModel, tuple[int | None, ...]]" = weakref.WeakKeyDictionary()


class _Reached(Exception):
    """The stretch has ended: what comes after it is not wanted."""


class Stretch:
    """Blocks ``first .. last`` of a bundle's model, sharing its weights.

    Args:
        bundle: the model.
        first: index of the first block, which takes hidden states; None starts from token ids.
        last: index after the last block; None runs to the logits.
        query_first: hand each layer's queries to the runtime (a ``QueryFirstRuntime``) before keys and values are
            computed; families that compute all three in one product hand them over together.

    Attributes:
        model: the copy, hooked.

    Raises:
        UnsupportedModelError: for a family whose blocks are not found.
    """

    def __init__(
        self, bundle: Bundle, first: int | None = None, last: int | None = None, *, query_first: bool = False
    ) -> None:
        layers = bundle.geometry.layers
        begin, end = first or 0, layers if last is None else last
        if not 0 <= begin <= end <= layers:
            raise UnsupportedModelError(f"blocks {begin}..{end} of {bundle.name}: it has {layers}")
        self._family = family_of(bundle.family)
        self._from_hidden = first is not None
        self._ends_early = last is not None
        self._runtime: AttentionRuntime | None = None
        self._positions: Tensor = torch.empty(0, dtype=torch.long)
        self._hidden: Tensor | None = None
        self._query_first = query_first
        self._early: Tensor | None = None
        self.model = sharing_copy(bundle.model)
        blocks = blocks_of(self.model, layers)
        self._layer_of: Mapping[int, int] = {
            id(module): layer for layer, block in enumerate(blocks) for module in block.modules()
        }
        if begin:
            forms = _forms_of(bundle.model, layers)
            for block, form in zip(list(blocks)[:begin], forms, strict=False):
                setattr(block, "forward", MethodType(_passing(form), block))  # noqa: B010 - mypy: a method
        if self._from_hidden:
            blocks[0].register_forward_pre_hook(self._bring_hidden(), with_kwargs=True)
        if last is not None:
            self._stop(blocks, last)
        self._hook()

    # -- hooks -------------------------------------------------------------------------------------------------------

    def _hook(self) -> None:
        name = f"smd_research_{id(self)}"
        this = weakref.ref(self)

        def interface(
            module: nn.Module,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            attention_mask: object = None,
            **options: Any,
        ) -> tuple[Tensor, None]:
            owner = this()
            assert owner is not None
            return owner._attend(module, query, key, value, **options), None

        ALL_ATTENTION_FUNCTIONS[name] = interface
        weakref.finalize(self, ALL_ATTENTION_FUNCTIONS._local_mapping.pop, name, None)
        own, projections = self._family.own_attention, self._family.matrices.projections
        for module in self.model.modules():
            config = getattr(module, "config", None)
            if config is not None:
                config._attn_implementation = name
            if own is not None and type(module).__name__ == own.module:
                setattr(module, own.method, MethodType(_replacement(own, this), module))
            if self._query_first and has_separate_projections(module, projections):
                run_queries_first(module, projections, lambda: this()._enter())  # type: ignore[union-attr]

    def _bring_hidden(self) -> Any:
        """Lets the first block take the given hidden states instead of the embedding."""
        this = weakref.ref(self)

        def replace(_module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
            owner = this()
            assert owner is not None
            if arguments:
                return (owner._hidden, *arguments[1:]), options
            return arguments, {**options, "hidden_states": owner._hidden}

        return replace

    def _stop(self, blocks: nn.ModuleList, last: int) -> None:
        """Ends the forward pass where block ``last`` would begin, with what it would have been given."""
        this = weakref.ref(self)

        def reached(hidden: Tensor) -> None:
            owner = this()
            assert owner is not None
            owner._hidden = hidden
            raise _Reached

        def before(_module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
            reached(arguments[0] if arguments else options["hidden_states"])

        def after(_module: nn.Module, _arguments: tuple[Any, ...], out: Any) -> None:
            reached(out[0] if isinstance(out, tuple) else out)

        if last < len(blocks):
            blocks[last].register_forward_pre_hook(before, with_kwargs=True)
        else:
            blocks[-1].register_forward_hook(after)

    def _attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scaling: float | None = None,
        softcap: float | None = None,
        sliding_window: int | None = None,
        s_aux: Tensor | None = None,
        **_: object,
    ) -> Tensor:
        assert self._runtime is not None
        layer = self._layer_of.get(id(module))
        if layer is None:
            raise UnsupportedModelError(
                f"attention of family '{self._family.name}' cannot be hooked: it is called outside its blocks"
            )
        window, chunk = _reach(module, layer)
        spec = AttentionSpec(
            query.shape[-1] ** -0.5 if scaling is None else scaling, softcap, sliding_window or window, chunk, s_aux
        )
        if self._query_first:
            if self._early is None:
                cast("QueryFirstRuntime", self._runtime).ask(layer, query, spec)
                if has_separate_projections(module, self._family.matrices.projections):
                    self._early = query
                    raise QueriesTaken
            else:
                query, self._early = self._early, None
        out = self._runtime.attend(layer, query, key, value, self._positions, spec)
        return out.transpose(1, 2)

    def _enter(self) -> None:
        cast("QueryFirstRuntime", self._runtime).enter()

    # -- running -----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def forward(
        self,
        runtime: AttentionRuntime,
        positions: Tensor,
        *,
        ids: Tensor | None = None,
        hidden: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Run the blocks.

        Args:
            runtime: computes each block's attention.
            positions: absolute positions ``[rows]``, shared by the batch, or ``[batch, rows]``.
            ids: token ids ``[batch, rows]``, for a stretch that begins with the embedding.
            hidden: hidden states ``[batch, rows, width]``, for one that begins at a block.
            last_only: return logits of the last row only.

        Returns:
            Logits ``[batch, rows, vocab]``, or hidden states ``[batch, rows, width]`` after the last block when the
            stretch ends before the head.
        """
        self._runtime, self._positions, self._early, self._hidden = runtime, positions, None, hidden
        if self._from_hidden:
            assert hidden is not None
            ids = torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        assert ids is not None
        options: dict[str, Any] = {"logits_to_keep": 1} if last_only and not self._ends_early else {}
        batch_positions = positions if positions.dim() == 2 else positions.unsqueeze(0).expand(ids.shape[0], -1)
        result: Tensor | None = None
        with contextlib.suppress(_Reached):
            result = self.model(input_ids=ids, position_ids=batch_positions, use_cache=False, **options).logits
        result = self._hidden if result is None else result
        self._runtime, self._hidden = None, None
        assert result is not None
        return result[:, -1:] if last_only and result.shape[1] > 1 else result


def _reach(module: nn.Module, layer: int) -> tuple[int | None, int | None]:
    """Window and chunk of a layer that only its mask would say, by the kinds of layers that transformers knows."""
    config: Any = getattr(module, "config", None)
    kinds = getattr(config, "layer_types", None) or ()
    kind = kinds[layer] if layer < len(kinds) else None
    if kind == "sliding_attention":
        return getattr(config, "sliding_window", None), None
    if kind == "chunked_attention":
        return None, getattr(config, "attention_chunk_size", None)
    return None, None


def _forms_of(model: PreTrainedModel, layers: int) -> tuple[int | None, ...]:
    """What each block returns: a tuple of so many things, or (None) the hidden states alone; seen on one token."""
    if model not in _forms:
        forms: list[int | None] = []
        handles = [
            block.register_forward_hook(lambda _, __, out: forms.append(len(out) if isinstance(out, tuple) else None))
            for block in blocks_of(model, layers)
        ]
        try:
            with torch.inference_mode():
                model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        _forms[model] = tuple(forms)
    return _forms[model]


def _passing(form: int | None) -> Any:
    """The forward of a block that hands on the hidden states it is given, in the form in which it returns them."""

    def forward(_block: nn.Module, *arguments: Any, **options: Any) -> Any:
        hidden = arguments[0] if arguments else options["hidden_states"]
        return hidden if form is None else (hidden, *[None] * (form - 1))

    return forward


def _replacement(own: OwnAttention, this: "weakref.ref[Stretch]") -> Any:
    """What stands in place of an attention that does not go through the interface."""

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: object = None
    ) -> tuple[Tensor, None]:
        owner = this()
        assert owner is not None
        out = owner._attend(module, query, key, value, scaling=own.scale, sliding_window=own.window(module))
        return out.transpose(1, 2), None

    return attend
