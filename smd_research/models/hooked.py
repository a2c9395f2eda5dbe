"""Run any stretch of a stock model's blocks with an attention runtime in place of its attention.

The stock modules are shared, never touched: a hooked model is a structural copy whose parameters are the same tensors.
Families that go through the transformers attention interface are reached there; one that bypasses it, where its record
says (``OwnAttention``). Masks are not asked of transformers: the runtime masks by absolute position, and tests hold it
to the stock logits.
"""

import copy
import weakref
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from smd_research.core.errors import UnsupportedModelError
from smd_research.models.attention import AttentionRuntime, AttentionSpec, QueryFirstRuntime
from smd_research.models.bundle import Bundle
from smd_research.models.families import Family, OwnAttention, family_of
from smd_research.models.query_first import QueriesTaken, has_separate_projections, run_queries_first


class HookedModel:
    """Blocks ``first .. last`` of a bundle's model, sharing its weights.

    Args:
        bundle: the model.
        first: index of the first block, which takes hidden states; None starts from token ids.
        last: index after the last block; None runs to the logits.
        query_first: hand each layer's queries to the runtime (a ``QueryFirstRuntime``) before keys and values are
            computed; families that compute all three in one product hand them over together.

    Raises:
        UnsupportedModelError: for a family whose layout or attention cannot be reached.
    """

    def __init__(
        self, bundle: Bundle, first: int | None = None, last: int | None = None, *, query_first: bool = False
    ) -> None:
        layers = bundle.geometry.layers
        begin, end = first or 0, layers if last is None else last
        if not 0 <= begin <= end <= layers:
            raise UnsupportedModelError(f"blocks {begin}..{end} of {bundle.name}: it has {layers}")
        self._family = family_of(bundle.family)
        if self._family.refused and end > begin:
            raise UnsupportedModelError(
                f"attention of family '{bundle.family}' cannot be hooked: {self._family.refused}"
            )
        self._from_hidden = first is not None
        self._runtime: AttentionRuntime | None = None
        self._positions: Tensor = torch.empty(0, dtype=torch.long)
        self._calls = 0
        self._hidden: Tensor | None = None
        self._query_first = query_first
        self._early: Tensor | None = None
        model = sharing_copy(bundle.model)
        decoder, blocks_name = _decoder(model, layers)
        blocks: nn.ModuleList = getattr(decoder, blocks_name)
        kept = nn.ModuleList(list(blocks)[begin:end])
        setattr(decoder, blocks_name, kept)
        self._expected = len(kept)
        self._inject_hidden(decoder, kept)
        self._truncated = last is not None
        if self._truncated:
            setattr(decoder, _final_norm_name(decoder, self._family), nn.Identity())
        self._model: nn.Module = model.base_model if self._truncated else model
        self._hook(model)

    def _hook(self, model: PreTrainedModel) -> None:
        name = f"smd_research_{id(self)}"
        this = weakref.ref(self)

        def interface(
            module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: object, **options: Any
        ) -> tuple[Tensor, None]:
            owner = this()
            assert owner is not None
            return owner._attend(module, query, key, value, **options), None

        ALL_ATTENTION_FUNCTIONS[name] = interface
        weakref.finalize(self, ALL_ATTENTION_FUNCTIONS._local_mapping.pop, name, None)
        own, projections = self._family.own_attention, self._family.matrices.projections
        for module in model.modules():
            config = getattr(module, "config", None)
            if config is not None:
                config._attn_implementation = name
            if own is not None and type(module).__name__ == own.module:
                setattr(module, own.method, MethodType(_replacement(own, this), module))
            if self._query_first and has_separate_projections(module, projections):
                run_queries_first(module, projections, lambda: this()._enter())  # type: ignore[union-attr]

    def _inject_hidden(self, decoder: nn.Module, kept: nn.ModuleList) -> None:
        """Let the first kept block take the given hidden states instead of the embedding."""
        if not self._from_hidden:
            return
        this = weakref.ref(self)

        def replace(_module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
            owner = this()
            assert owner is not None
            return (owner._hidden, *arguments[1:]), options

        if len(kept):
            kept[0].register_forward_pre_hook(replace, with_kwargs=True)
        else:
            norm = getattr(decoder, _final_norm_name(decoder, self._family))
            norm.register_forward_pre_hook(replace, with_kwargs=True)

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
        layer = _layer_of(module, self._family)
        spec = AttentionSpec(query.shape[-1] ** -0.5 if scaling is None else scaling, softcap, sliding_window, s_aux)
        if self._query_first:
            assert isinstance(self._runtime, QueryFirstRuntime)
            if self._early is None:
                self._runtime.ask(layer, query, spec)
                if has_separate_projections(module, self._family.matrices.projections):
                    self._early = query
                    raise QueriesTaken
            else:
                query, self._early = self._early, None
        self._calls += 1
        out = self._runtime.attend(layer, query, key, value, self._positions, spec)
        return out.transpose(1, 2)

    def _enter(self) -> None:
        assert isinstance(self._runtime, QueryFirstRuntime)
        self._runtime.enter()

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

        Raises:
            UnsupportedModelError: when the family bypassed the hook.
        """
        self._runtime, self._positions, self._calls, self._early = runtime, positions, 0, None
        if self._from_hidden:
            assert hidden is not None
            self._hidden = hidden
            ids = torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        assert ids is not None
        options: dict[str, Any] = {} if self._truncated or not last_only else {"logits_to_keep": 1}
        batch_positions = positions if positions.dim() == 2 else positions.unsqueeze(0).expand(ids.shape[0], -1)
        out = self._model(input_ids=ids, position_ids=batch_positions, use_cache=False, **options)
        self._runtime, self._hidden = None, None
        if self._calls != self._expected:
            raise UnsupportedModelError(
                f"attention of family '{self._family.name}' cannot be hooked: {self._calls} of {self._expected} layers "
                "went through the hook"
            )
        result: Tensor = out.last_hidden_state if self._truncated else out.logits
        return result[:, -1:] if last_only and result.shape[1] > 1 else result


def sharing_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the module tree whose parameters and buffers are the same tensors."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def blocks_of(model: PreTrainedModel, layers: int) -> nn.ModuleList:
    """The list of a model's blocks.

    Raises:
        UnsupportedModelError: when none is found.
    """
    decoder, name = _decoder(model, layers)
    blocks: nn.ModuleList = getattr(decoder, name)
    return blocks


def final_norm_of(model: PreTrainedModel, layers: int) -> nn.Module:
    """The norm between the last block and the head.

    Raises:
        UnsupportedModelError: when none is found.
    """
    decoder, _ = _decoder(model, layers)
    norm: nn.Module = getattr(decoder, _final_norm_name(decoder, family_of(str(model.config.model_type))))
    return norm


def _decoder(model: PreTrainedModel, layers: int) -> tuple[nn.Module, str]:
    """The module that holds the list of blocks, and the list's name."""
    for module in model.base_model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == layers:
                return module, name
    raise UnsupportedModelError(f"no list of {layers} blocks found in a '{model.config.model_type}' model")


def _final_norm_name(decoder: nn.Module, family: Family) -> str:
    for name in family.final_norm:
        if isinstance(getattr(decoder, name, None), nn.Module):
            return name
    raise UnsupportedModelError(f"no final norm found in a '{family.name}' model: it cannot be cut between blocks")


def _layer_of(module: nn.Module, family: Family) -> int:
    for name in family.layer_index:
        layer = getattr(module, name, None)
        if layer is not None:
            return int(layer)
    raise UnsupportedModelError(f"attention of family '{family.name}' cannot be hooked: it does not know its layer")


def _replacement(own: OwnAttention, this: "weakref.ref[HookedModel]") -> Any:
    """What stands in place of an attention that does not go through the interface."""

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: object = None
    ) -> tuple[Tensor, None]:
        owner = this()
        assert owner is not None
        out = owner._attend(module, query, key, value, scaling=own.scale, sliding_window=own.window(module))
        return out.transpose(1, 2), None

    return attend
