import pytest
import torch
from torch.nn import functional

from smd_research.mechanisms.integers import row_digests
from smd_research.mechanisms.integers.row_digests import DIGEST_BYTES, RowDigests


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_the_tables_own_rows_are_accepted(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_digests, "BLOCK", 7)
    table = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    digests = RowDigests(lambda ids: functional.embedding(ids, table), 20, table.device)
    assert digests.nbytes == 20 * DIGEST_BYTES
    ids = torch.tensor([3, 19, 3, 0])
    assert digests.accepts(ids, table[ids])
    assert not digests.accepts(ids, table[ids.flip(0)])
    assert not digests.accepts(ids, table[ids][:3])
    for position in range(len(ids)):
        wrong = table[ids].clone()
        wrong[position, 4] = torch.nextafter(wrong[position, 4], torch.tensor(9, dtype=dtype))
        assert not digests.accepts(ids, wrong)
