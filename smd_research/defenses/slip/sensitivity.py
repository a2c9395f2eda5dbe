"""How much the model's loss rises when one layer is left with its exposed part alone."""

from collections.abc import Mapping, Sequence

import torch

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import generator
from smd_research.mechanisms.decomposition.splits import Kind, split
from smd_research.models.bundle import Bundle
from smd_research.models.linears import linear_layers, weight_of, with_weights

DOCUMENTS, TOKENS = 32, 64


def loss_increases(
    bundle: Bundle, ranks: Mapping[str, int], kind: Kind, corpus: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Loss with one layer's secret part missing, minus the loss of the whole model, in nats a token; layer by layer.

    Layers are measured one at a time: what several of them do together is not the sum.

    Args:
        bundle: the model.
        ranks: components that are secret, by layer.
        kind: of the split.
        corpus: token ids of public documents; the first ``DOCUMENTS`` count, with ``TOKENS`` tokens each.

    Raises:
        ConfigError: without public text.
    """
    rows = [list(document[:TOKENS]) for document in corpus[:DOCUMENTS] if len(document) > 1]
    if not rows:
        raise ConfigError("rule=budget measures on public text: the data source gives no train split")
    layers = linear_layers(bundle)
    whole = mean_loss(bundle, rows)
    found = {}
    for name, rank in ranks.items():
        parts = split(weight_of(layers[name]), rank, kind, generator(0, "slip", "sensitivity", name))
        found[name] = mean_loss(with_weights(bundle, {name: parts.exposed}), rows) - whole
    return found


@torch.inference_mode()
def mean_loss(bundle: Bundle, rows: Sequence[Sequence[int]]) -> float:
    """Mean negative log-likelihood a token, in nats, of documents of at least two tokens each."""
    length = max(map(len, rows))
    ids = torch.zeros((len(rows), length), dtype=torch.long, device=bundle.device)
    targets = torch.full_like(ids, -100)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        targets[place, : len(row)] = torch.tensor(row)
    # Rows are padded behind, where a causal model does not look.
    logits = bundle.model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten()))
