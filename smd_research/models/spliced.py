"""A stock model whose states before a block pass through a function: what is trained at a cut learns there.

Gradients flow through the blocks behind, whose weights stay as they are; a
:class:`~smd_research.models.stretch.Stretch` runs without them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from smd_research.models.bundle import Bundle
from smd_research.models.structure import blocks_of, sharing_copy

Change = Callable[[Tensor], Tensor]
"""States ``[b, n, width]`` into others of the same shape."""


class SplicedModel:
    """A bundle's model with a place for a function between its first blocks and the rest.

    Args:
        bundle: the model; its weights are shared where they are in single precision, else copied into it.
        layer: how many blocks come before the function.

    Raises:
        UnsupportedModelError: for a family whose blocks are not found.
    """

    def __init__(self, bundle: Bundle, layer: int) -> None:
        self._change: Change | None = None
        self._model: Any = sharing_copy(bundle.model)
        if bundle.dtype != torch.float32:
            self._model = self._model.float()
        blocks = blocks_of(self._model, bundle.geometry.layers)
        if layer < len(blocks):
            blocks[layer].register_forward_pre_hook(self._before, with_kwargs=True)
        else:
            blocks[-1].register_forward_hook(self._after)

    def logits(self, ids: Tensor, change: Change | None = None) -> Tensor:
        """Logits ``[b, n, vocab]`` of whole texts.

        Args:
            ids: token ids ``[b, n]``.
            change: what happens to the states at the cut; None: nothing.
        """
        self._change = change
        try:
            logits: Tensor = self._model(input_ids=ids, use_cache=False).logits
        finally:
            self._change = None
        return logits

    def _before(self, _module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if self._change is None:
            return None
        if arguments:
            return (self._change(arguments[0]), *arguments[1:]), options
        return arguments, {**options, "hidden_states": self._change(options["hidden_states"])}

    def _after(self, _module: nn.Module, _arguments: tuple[Any, ...], out: Any) -> Any:
        if self._change is None:
            return None
        return (self._change(out[0]), *out[1:]) if isinstance(out, tuple) else self._change(out)
