"""However a product is computed, it is the layer's."""

import pytest
import torch
from torch import nn

from smd_research.models.few_rows import product


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", range(1, 10))
def test_a_product_is_the_layers(rows: int, bias: bool) -> None:
    torch.manual_seed(rows)
    layer, x = nn.Linear(48, 80, bias=bias), torch.randn(rows, 48)
    with torch.inference_mode():
        got = product(layer, x)
        assert got.is_contiguous()
        torch.testing.assert_close(got, layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_arithmetic_is_left_to_the_layer(dtype: torch.dtype) -> None:
    layer, x = nn.Linear(8, 8).to(dtype), torch.randn(2, 8).to(dtype)
    assert torch.equal(product(layer, x), layer(x))


def test_what_stands_in_a_layers_place_is_called() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    layer, x = Doubled(8, 8), torch.randn(2, 8)
    assert torch.equal(product(layer, x), layer(x))
