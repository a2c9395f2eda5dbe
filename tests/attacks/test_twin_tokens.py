"""Tokens whose embeddings are the same are found, and no others."""

import pytest
import torch

from attacks.twin_tokens import twins


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_are_nearly_the_same_are_twins(dtype: torch.dtype) -> None:
    table = torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    table[100] = table[7]
    table[200] = 1.0001 * table[7]
    table[300] = 1.01 * table[7]
    table = table.to(dtype)
    assert twins(table, [7, 8, 7], 2e-2) == {7: (100, 200, 300)}
    assert twins(table, [8, 9], 2e-2) == {}
    close = twins(table, [7], 1e-3)[7]
    assert 100 in close
    assert 300 not in close
    assert twins(table, [300], 2e-2) == {300: (7, 100, 200)}


def test_a_row_of_zeros_is_its_likes_twin() -> None:
    table = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    table[[3, 5]] = 0
    assert twins(table, [3, 4], 1e-2) == {3: (5,)}
