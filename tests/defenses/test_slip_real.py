"""Weight decomposition of a real model: exact on activations with outliers, in memory that a bank of masks allows."""

import pytest
import torch
from slip_support import deployed

from smd_research import metrics
from smd_research.boundary import Boundary
from smd_research.models import Bundle
from smd_research.models.decoding import plain_greedy, plain_logits

pytestmark = [pytest.mark.real, pytest.mark.slow]  # a minute and a half, most of it singular values

TEXT = "The patient, Maria Lindqvist, was seen on 14 March for chest pain that had begun three days before."


def test_the_real_model_keeps_its_answers_bit_for_bit_under_masks_and_its_memory_bounded(smollm2: Bundle) -> None:
    prompt = tuple(smollm2.tokenizer(TEXT)["input_ids"])
    continuation = plain_greedy(smollm2, prompt, 8)
    plain = plain_logits(smollm2, prompt, continuation)
    boundary = Boundary(record=False)
    with deployed(smollm2, boundary) as masked, deployed(smollm2, masking="none") as unmasked:
        got, same = masked.score(prompt, continuation), unmasked.score(prompt, continuation)
        held = masked.memory().weights + masked.rounds.masking.nbytes
    assert torch.equal(got, same)
    assert metrics.kl(plain, got) < 1e-6
    top = plain.topk(2, -1).values
    changed = plain.argmax(-1) != got.argmax(-1)
    assert not changed[top[:, 0] - top[:, 1] >= 0.05].any()
    assert held < 2 * smollm2.weight_bytes, "of either party, the masks of a request among them"
