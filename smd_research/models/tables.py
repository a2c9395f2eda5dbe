"""The two tables of a language model that speak of token ids: the input embedding and the output head.

Whoever substitutes ids or transforms embeddings replaces these and nothing else.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from smd_research.core.errors import UnsupportedModelError
from smd_research.models.bundle import Bundle
from smd_research.models.families import family_of
from smd_research.models.structure import sharing_copy


def input_table(bundle: Bundle) -> Tensor:
    """The input embedding ``[vocab, d]``, where it is all that reads token ids.

    Raises:
        UnsupportedModelError: for a model without one, with several, or with one that is no floating-point matrix.
    """
    try:
        module = bundle.model.get_input_embeddings()
    except NotImplementedError:
        module = None
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2 or not weight.is_floating_point():
        raise _inseparable(bundle, "it has no table with a row for each token")
    if weight.shape[0] != bundle.geometry.vocab:
        raise _inseparable(bundle, f"its table has {weight.shape[0]} rows for {bundle.geometry.vocab} tokens")
    others = [
        name
        for name, one in bundle.model.named_modules()
        if isinstance(one, nn.Embedding) and one is not module and one.num_embeddings == bundle.geometry.vocab
        if not any(word in name for word in family_of(bundle.family).position_tables)
    ]
    if others:
        raise _inseparable(bundle, f"'{others[0]}' reads token ids too")
    return weight


def output_head(bundle: Bundle) -> nn.Linear:
    """The output head, ``weight [vocab, d]`` and perhaps a ``bias [vocab]``.

    Raises:
        UnsupportedModelError: for a model without such a head.
    """
    head = bundle.model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.weight.shape[0] != bundle.geometry.vocab:
        raise _inseparable(bundle, "it has no linear output head with a row for each token")
    return head


def is_tied(bundle: Bundle) -> bool:
    """Whether input table and head are one matrix."""
    return output_head(bundle).weight.data_ptr() == input_table(bundle).data_ptr()


def with_tables(bundle: Bundle, table: Tensor, head: Tensor | None, bias: Tensor | None = None) -> Bundle:
    """A bundle with other tables; all other tensors are shared, the given one stays untouched.

    Args:
        bundle: the model.
        table: input embedding ``[V', d]``; ``V'`` may differ from the model's vocabulary.
        head: output head ``[V', d]``; None ties it to the input embedding.
        bias: of the head ``[V']``, for a model that has one.
    """
    model = sharing_copy(bundle.model)
    size = len(table)
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    embedding.weight = _parameter(table, bundle)
    embedding.num_embeddings = size
    output.weight = embedding.weight if head is None else _parameter(head, bundle)
    output.out_features = size
    if output.bias is not None:
        assert bias is not None
        output.bias = _parameter(bias, bundle)
    config = model.config.get_text_config()
    config.vocab_size, config.tie_word_embeddings = size, head is None
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=False)
    return replace(bundle, model=model, geometry=replace(bundle.geometry, vocab=size))


def without_head(bundle: Bundle) -> Bundle:
    """A bundle whose model has no output head: ``get_output_embeddings`` gives None, the body runs alone."""
    model = sharing_copy(bundle.model)
    model.set_output_embeddings(None)
    return replace(bundle, model=model)


def body_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """Every parameter but the two tables'."""
    tables = (model.get_input_embeddings(), model.get_output_embeddings())
    apart = {id(one) for table in tables if table is not None for one in table.parameters()}
    return [one for one in model.parameters() if id(one) not in apart]


def _parameter(values: Tensor, bundle: Bundle) -> nn.Parameter:
    fresh = torch.empty(values.shape, dtype=bundle.dtype, device=bundle.device)
    return nn.Parameter(fresh.copy_(values), requires_grad=False)


def _inseparable(bundle: Bundle, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"the embedding of family '{bundle.family}' ({bundle.name}) cannot be keyed apart from the rest: {why}"
    )
