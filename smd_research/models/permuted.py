"""A model whose residual stream is permuted: the same function on permuted hidden states.

With ``h' = h[perm]`` a matrix that reads the stream permutes its input columns, one that writes to it its output rows,
and a norm its gains (the permutation schemes of STIP and of PermLLM/Centaur-like systems).
"""

import copy
from dataclasses import replace

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from smd_research.core.errors import UnsupportedModelError
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import blocks_of, final_norm_of

_READERS = frozenset(
    ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "c_attn", "c_fc", "fc1", "query_key_value", "dense_h_to_4h")
)
_WRITERS = frozenset(("o_proj", "down_proj", "c_proj", "fc2", "out_proj", "dense", "dense_4h_to_h"))
_NOT_ON_THE_STREAM = frozenset(("q_norm", "k_norm"))


def permuted(bundle: Bundle, order: Tensor, first: int) -> Bundle:
    """The bundle with blocks ``first ..``, final norm and head acting on ``h[order]``.

    Args:
        bundle: stays untouched.
        order: a permutation of the width ``[width]``.
        first: index of the first block that is permuted.

    Raises:
        UnsupportedModelError: for a family with a matrix of unknown role.
    """
    if any(parameter.dim() > 2 for parameter in bundle.model.parameters()):
        raise UnsupportedModelError(f"permute=hidden does not know the experts of family '{bundle.family}'")
    model = copy.deepcopy(bundle.model)
    head = model.get_output_embeddings()
    if head is None:
        raise UnsupportedModelError(f"family '{bundle.family}' has no output head to permute")
    head.weight = nn.Parameter(head.weight[:, order].clone(), requires_grad=False)
    _permute_norm(final_norm_of(model, bundle.geometry.layers), order)
    for block in list(blocks_of(model, bundle.geometry.layers))[first:]:
        for path, module in block.named_modules():
            _permute_module(path.rsplit(".", 1)[-1], module, order, bundle)
    return replace(bundle, model=model)


def _permute_module(name: str, module: nn.Module, order: Tensor, bundle: Bundle) -> None:
    if isinstance(module, nn.Linear | Conv1D):
        # Conv1D stores [in, out], Linear [out, in]
        reads, writes = (0, 1) if isinstance(module, Conv1D) else (1, 0)
        if name in _READERS:
            module.weight.data = module.weight.data.index_select(reads, order)
        elif name in _WRITERS:
            module.weight.data = module.weight.data.index_select(writes, order)
            if module.bias is not None:
                module.bias.data = module.bias.data[order]
        else:
            raise UnsupportedModelError(
                f"permute=hidden does not know matrix '{name}' of family '{bundle.family}': is it a reader or a writer?"
            )
    elif name not in _NOT_ON_THE_STREAM and not list(module.children()):
        weight = getattr(module, "weight", None)
        if weight is not None and weight.shape == order.shape:
            _permute_norm(module, order)


def _permute_norm(norm: nn.Module, order: Tensor) -> None:
    for parameter in norm.parameters(recurse=False):
        parameter.data = parameter.data[order]
