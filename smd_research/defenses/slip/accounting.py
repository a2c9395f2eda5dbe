"""What a weight decomposition costs, in closed form: secret parameters, FLOPs of either side, masks, traffic.

All figures are for one token; one multiplication with its addition is 2 FLOPs. The device's products are counted once a
weight, whatever the arithmetic of the field makes of them. Norms, softmax and activation functions are not counted, nor
is the embedding, which is a look-up.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from smd_research.models.bundle import Bundle, Geometry
from smd_research.models.linears import input_groups, linear_layers, weight_of


@dataclass(frozen=True)
class Sizes:
    """What the costs depend on.

    Attributes:
        matrices: rows and columns of every linear layer, by module name.
        products: the layers of each product: those that read one input go in one round.
        geometry: sizes of the decoder.
    """

    matrices: Mapping[str, tuple[int, int]]
    products: tuple[tuple[str, ...], ...]
    geometry: Geometry

    @classmethod
    def of(cls, bundle: Bundle) -> "Sizes":
        """Read them from a model (one on the ``meta`` device will do).

        Raises:
            UnsupportedModelError: for a model that cannot be split.
        """
        layers = linear_layers(bundle)
        matrices = {name: (weight_of(m).shape[0], weight_of(m).shape[1]) for name, m in layers.items()}
        return cls(matrices, input_groups(layers), bundle.geometry)


@dataclass(frozen=True)
class SplitCost:
    """Costs of one token.

    Attributes:
        linear_params: parameters of all linear layers, biases and head left out.
        secure_params: parameters of the secret parts, ``sum k (m + n)``.
        rank_flops: trusted side: the secret parts.
        attention_flops: trusted side: scores and weighted values over the context.
        verify_flops: trusted side: Freivalds' check of every product.
        mask_flops: trusted side: scaling and masking what is sent, unmasking and scaling what comes back.
        device_flops: device: the exposed parts.
        head_flops: device: the head.
        offline_flops: trusted side, before the session: the masks' way through the exposed parts and the head.
        mask_elements: field elements kept for the masks (the masks themselves are drawn again from their key).
        sent_elements: field elements sent, both ways together.
        rounds: messages to the device that wait for an answer.
    """

    linear_params: int
    secure_params: int
    rank_flops: int
    attention_flops: int
    verify_flops: int
    mask_flops: int
    device_flops: int
    head_flops: int
    offline_flops: int
    mask_elements: int
    sent_elements: int
    rounds: int

    @property
    def secure_share(self) -> float:
        """Secret parameters over those of all linear layers."""
        return self.secure_params / self.linear_params

    @property
    def trusted_flops(self) -> int:
        """All that the trusted side computes online."""
        return self.rank_flops + self.attention_flops + self.verify_flops + self.mask_flops

    @property
    def trusted_share(self) -> float:
        """Of the FLOPs of both sides, what the trusted side computes online."""
        return self.trusted_flops / (self.trusted_flops + self.device_flops + self.head_flops)


def cost(
    sizes: Sizes,
    ranks: Mapping[str, int],
    context: int,
    *,
    repetitions: int = 2,
    head: bool = True,
    masked: bool = True,
) -> SplitCost:
    """The cost of one token (reconstructed: the papers' own counts could not be read).

    Args:
        sizes: of the model.
        ranks: secret components ``k`` by module name.
        context: tokens that attention looks at, this one included.
        repetitions: of Freivalds' check; 0: none.
        head: whether the output head is one of the device's products.
        masked: whether products are masked and everything between them is the trusted side's. If not, the device runs
            the rest of the model in the clear, attention included, and sends each input of a layer with a secret part.
    """
    matrices, geometry = sizes.matrices, sizes.geometry
    products = [(sum(matrices[name][0] for name in names), matrices[names[0]][1]) for names in sizes.products]
    linear = sum(m * n for m, n in matrices.values())
    secure = sum(ranks.get(name, 0) * (m + n) for name, (m, n) in matrices.items())
    attention = 4 * context * geometry.heads * geometry.head_dim * geometry.layers
    at_head = geometry.vocab * geometry.width if head else 0
    if not masked:
        asked = [
            shape
            for shape, names in zip(products, sizes.products, strict=True)
            if any(ranks.get(name, 0) for name in names)
        ]
        moved = sum(m + n for m, n in asked)
        return SplitCost(
            linear_params=linear,
            secure_params=secure,
            rank_flops=2 * secure,
            attention_flops=0,
            verify_flops=0,
            mask_flops=0,
            device_flops=2 * linear + attention,
            head_flops=2 * at_head,
            offline_flops=0,
            mask_elements=0,
            sent_elements=moved,
            rounds=len(asked),
        )
    if head:
        products.append((geometry.vocab, geometry.width))
    ends = sum(m + n for m, n in products)
    return SplitCost(
        linear_params=linear,
        secure_params=secure,
        rank_flops=2 * secure,
        attention_flops=attention,
        verify_flops=2 * repetitions * ends,
        mask_flops=2 * ends,
        device_flops=2 * linear,
        head_flops=2 * at_head,
        offline_flops=2 * (linear + at_head),
        mask_elements=sum(m for m, _ in products),
        sent_elements=ends,
        rounds=len(products),
    )
