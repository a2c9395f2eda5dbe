"""The linear layers inside a model's blocks, by name: their roles, their weights, and a model with others in place.

Every weight is handled as ``[out, in]``, whatever the family stores (GPT-2's ``Conv1D`` keeps ``[in, out]``).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from smd_research.core.errors import UnsupportedModelError
from smd_research.models.bundle import Bundle
from smd_research.models.families import Part, matrix_names, part_of
from smd_research.models.structure import blocks_of, sharing_copy

_INPUTS = {"q": "qkv", "k": "qkv", "v": "qkv", "gate": "gate_up", "up": "gate_up"}


@dataclass(frozen=True)
class Place:
    """Where a linear layer stands.

    Attributes:
        block: index of its block.
        part: of the block.
        matrix: its role, the same word in every family: ``q k v`` or the fused ``qkv``, ``o``, ``gate up`` or the fused
            ``gate_up``, ``down``.
    """

    block: int
    part: Part
    matrix: str


def place_of(name: str) -> Place:
    """Where the layer of a module name stands, e.g. ``model.layers.0.self_attn.q_proj``.

    Raises:
        UnsupportedModelError: for a matrix of unknown role.
    """
    path = name.split(".")
    part = part_of(path)
    matrix = matrix_names(part).get(path[-1])
    block = next((int(word) for word in path if word.isdigit()), None)
    if matrix is None or block is None:
        known = ", ".join(sorted({*matrix_names("attention"), *matrix_names("mlp")}))
        raise UnsupportedModelError(f"the linear layer '{name}' has no known role in a block: known are {known}")
    return Place(block, part, matrix)


def linear_layers(bundle: Bundle) -> dict[str, nn.Module]:
    """The linear layers of all blocks (``nn.Linear`` and ``Conv1D``; not the head), by module name, block by block.

    Raises:
        UnsupportedModelError: when a block multiplies by anything else, as the experts of a mixture do, or by a linear
            layer of unknown role.
    """
    blocks = {id(block) for block in blocks_of(bundle.model, bundle.geometry.layers)}
    found: dict[str, nn.Module] = {}
    for path, block in bundle.model.named_modules():
        if id(block) in blocks:
            found |= _of_block(path, block, bundle.family)
    for name in found:
        place_of(name)
    return found


def _of_block(path: str, block: nn.Module, family: str) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    for inner, module in block.named_modules():
        name = f"{path}.{inner}"
        if isinstance(module, nn.Linear | Conv1D):
            found[name] = module
            continue
        strange = [key for key, parameter in module.named_parameters(recurse=False) if parameter.dim() > 1]
        if strange:
            raise UnsupportedModelError(
                f"the weights of family '{family}' cannot be split: '{name}' ({type(module).__name__}, "
                f"{', '.join(strange)}) is no linear layer"
            )
    return found


def weight_of(module: nn.Module) -> Tensor:
    """The weight of a linear layer as ``[out, in]``."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.T if isinstance(module, Conv1D) else weight


def with_weights(bundle: Bundle, weights: Mapping[str, Tensor]) -> Bundle:
    """A bundle with other weights in some linear layers; all other tensors are shared, the given one stays untouched.

    Args:
        bundle: the model.
        weights: ``[out, in]`` by module name, of any floating type: they take that of the model.

    Raises:
        ValueError: for a weight of another shape.
    """
    model = sharing_copy(bundle.model)
    for name, weight in weights.items():
        module = model.get_submodule(name)
        old = weight_of(module)
        if old.shape != weight.shape:
            raise ValueError(f"{name} is {tuple(old.shape)}, the new weight {tuple(weight.shape)}")
        stored = weight.T if isinstance(module, Conv1D) else weight
        fresh = torch.empty_like(stored, dtype=old.dtype, device=old.device, memory_format=torch.contiguous_format)
        module.weight = nn.Parameter(fresh.copy_(stored), requires_grad=False)
    return replace(bundle, model=model)


def input_groups(names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Layers that read one input, together: queries, keys and values; gate and up; each other layer by itself.

    Args:
        names: module names, in order.
    """
    groups: dict[tuple[int, str], list[str]] = {}
    for name in names:
        place = place_of(name)
        groups.setdefault((place.block, _INPUTS.get(place.matrix, place.matrix)), []).append(name)
    return tuple(map(tuple, groups.values()))
