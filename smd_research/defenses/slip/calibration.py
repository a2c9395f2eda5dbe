"""How many fraction bits each product's activations may have: measured on public text, bounded for every input."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import generator
from smd_research.defenses.slip.products import Product
from smd_research.mechanisms.integers.field import Field
from smd_research.models.bundle import Bundle
from smd_research.models.structure import sharing_copy

DOCUMENTS, TOKENS, BATCH = 96, 96, 8
MOST_FRACTION_BITS = 20
"""More than that is beyond what float32 activations carry."""


@dataclass(frozen=True)
class Scaling:
    """Fixed point of one product's inputs.

    Attributes:
        fraction_bits: ``f``.
        limit: largest magnitude of ``round(2^f a)``: beyond it an output could leave ``(-p/2, p/2)``.
    """

    fraction_bits: int
    limit: int


def scalings(
    products: Sequence[Product],
    peaks: Mapping[int, float],
    integers: Mapping[int, Tensor],
    field: Field,
    margin_bits: int,
) -> dict[int, Scaling]:
    """Fraction bits of each product: as many as keep ``margin_bits`` between calibration and the hard bound.

    The bound holds for every input: ``|W x| <= max_row |W|_1 max |x| < p/2`` (reconstructed: notes, section 7.3).

    Args:
        products: of the model.
        peaks: largest magnitude of an input seen in calibration, by product.
        integers: exposed weights ``[m, n]``, by product.
        field: of the residues.
        margin_bits: factor ``2**margin_bits`` by which an activation may exceed what calibration saw.

    Raises:
        ConfigError: for a product whose activations leave no fraction bit.
    """
    found = {}
    for product in products:
        row_sum = int(integers[product.number].double().abs().sum(1).max())
        limit = (field.prime // 2) // max(row_sum, 1)
        room = math.log2(max(limit, 1) / max(peaks[product.number], 2.0**-20))
        bits = min(math.floor(room) - margin_bits, MOST_FRACTION_BITS)
        if bits < 1:
            raise ConfigError(
                f"product {product.name} cannot be put in fixed point: its activations reach "
                f"{peaks[product.number]:.4g}, which leaves {bits} fraction bits modulo {field.prime}; use field=wide, "
                "fewer bits or a smaller margin_bits"
            )
        found[product.number] = Scaling(bits, limit)
    return found


@torch.inference_mode()
def input_peaks(bundle: Bundle, products: Sequence[Product], corpus: Sequence[Sequence[int]]) -> dict[int, float]:
    """Largest magnitude of each product's inputs on public text.

    Args:
        bundle: the model, whole.
        products: of the model.
        corpus: token ids of public documents; the first ``DOCUMENTS`` count, with ``TOKENS`` tokens each. Without any,
            random token ids stand in, which a party that has no text can draw as well.
    """
    documents = [list(document[:TOKENS]) for document in corpus[:DOCUMENTS] if document]
    if not documents:
        drawn = generator(0, "slip", "calibration").integers(0, bundle.geometry.vocab, (DOCUMENTS, TOKENS))
        documents = [row[: bundle.geometry.context].tolist() for row in drawn]
    peaks = {product.number: 0.0 for product in products}
    real = torch.empty(0, dtype=torch.bool)

    def note(number: int, _module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen = arguments[0].float().abs().amax(-1).reshape(real.shape)[real]
        peaks[number] = max(peaks[number], float(seen.max()))

    model = sharing_copy(bundle.model)
    for product in products:
        model.get_submodule(product.layers[0]).register_forward_pre_hook(partial(note, product.number))
    for start in range(0, len(documents), BATCH):
        batch = documents[start : start + BATCH]
        ids = torch.zeros((len(batch), max(map(len, batch))), dtype=torch.long, device=bundle.device)
        real = torch.zeros_like(ids, dtype=torch.bool)
        for row, document in enumerate(batch):  # padded behind, where a causal model does not look
            ids[row, : len(document)] = torch.tensor(document, device=bundle.device)
            real[row, : len(document)] = True
        model(input_ids=ids, use_cache=False)
    return peaks
