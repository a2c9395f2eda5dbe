"""The parts of a stock model, found in its module tree, and copies of the tree that share its weights."""

import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from smd_research.core.errors import UnsupportedModelError
from smd_research.models.families import family_of

_SMALL_BUFFER = 8192
"""Elements of a buffer that each copy has for itself: some rotary embeddings change their angles in place."""


def sharing_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the module tree whose parameters and large buffers are the same tensors."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in model.parameters()}
    for buffer in model.buffers():
        # left to deepcopy, a small one would bring a copy of all that lies in its storage: of shared weights, the model
        shared[id(buffer)] = buffer if buffer.numel() > _SMALL_BUFFER else buffer.clone()
    return copy.deepcopy(model, shared | _empty(model))


def _empty(model: PreTrainedModel) -> dict[int, Any]:
    """New empty containers for those of every module, a dozen each: copied one by one they take most of the time."""
    held = (value for module in model.modules() for value in vars(module).values())
    return {id(value): type(value)() for value in held if type(value) in (OrderedDict, dict, set) and not value}


def blocks_of(model: PreTrainedModel, layers: int) -> nn.ModuleList:
    """The list of a model's blocks.

    Raises:
        UnsupportedModelError: when none is found.
    """
    return _decoder(model, layers)[1]


def final_norm_of(model: PreTrainedModel, layers: int) -> nn.Module:
    """The norm between the last block and the head.

    Raises:
        UnsupportedModelError: when none is found.
    """
    decoder, family = _decoder(model, layers)[0], family_of(str(model.config.model_type))
    for name in family.final_norm:
        norm = getattr(decoder, name, None)
        if isinstance(norm, nn.Module):
            return norm
    raise UnsupportedModelError(f"no final norm found in a '{family.name}' model: its features cannot be permuted")


def rotaries_of(model: PreTrainedModel) -> Iterator[nn.Module]:
    """The modules that compute the angles of rotary embeddings: as the family's record calls them, or by class name."""
    names = family_of(str(model.config.model_type)).rotary
    for path, module in model.named_modules():
        if path.rsplit(".", 1)[-1] in names or "rotary" in type(module).__name__.lower():
            yield module


def _decoder(model: PreTrainedModel, layers: int) -> tuple[nn.Module, nn.ModuleList]:
    """The module that holds the list of blocks, and the list."""
    for module in model.base_model.modules():
        for child in module.children():
            if isinstance(child, nn.ModuleList) and len(child) == layers:
                return module, child
    raise UnsupportedModelError(f"no list of {layers} blocks found in a '{model.config.model_type}' model")
