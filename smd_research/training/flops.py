"""Floating-point operations by the usual estimate: two for each weight of a matrix and token, attention left out."""

from transformers import PreTrainedModel


def matrix_parameters(model: PreTrainedModel) -> int:
    """Weights of the matrices of the body that a token passes through; the embedding table is only looked up."""
    table = model.get_input_embeddings().weight
    return sum(p.numel() for p in model.base_model.parameters() if p.ndim > 1 and p is not table)


def forward_flops(model: PreTrainedModel, tokens: int) -> float:
    """Counts the operations of reading so many tokens with the body."""
    return 2.0 * matrix_parameters(model) * tokens


def training_flops(model: PreTrainedModel, trained: int, tokens: int) -> float:
    """Counts the operations of training on so many tokens.

    They are the forward pass, the gradient of the states, and that of the weights that are trained.

    Args:
        model: what is trained.
        trained: how many weights of matrices ask for a gradient.
        tokens: of all steps.
    """
    passing = matrix_parameters(model)
    return (4.0 * passing + 2.0 * min(trained, passing)) * tokens
