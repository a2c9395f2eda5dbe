"""A real model's prompts come out of secure multi-party decoding, whichever way the vault answers."""

import numpy as np
import pytest

from attacks.base import Public
from attacks.prompts.partial_attention_inversion.attack import PartialAttentionInversion
from smd_research.boundary import Boundary
from smd_research.data.prompts import Prompt
from smd_research.defenses.smd import Smd
from smd_research.models import Bundle

pytestmark = [pytest.mark.real, pytest.mark.slow]  # half a minute, most of it decoding

TEXT = "The patient, Maria Lindqvist, was seen on 14 March for chest pain that had begun three days before."


def test_every_form_of_reply_gives_a_real_models_prompt_away(smollm2: Bundle) -> None:
    ids = tuple(smollm2.tokenizer(TEXT)["input_ids"][:16])
    attack = PartialAttentionInversion()
    attack.fit(Public(smollm2, "smd"))
    for options in ({}, {"reply": "lse"}, {"merge": "vault"}, {"inner_layers": 1}):
        with Smd(**options).prepare(smollm2).deploy(Boundary("inproc")) as deployment:  # type: ignore[arg-type]
            deployment.generate(Prompt("p", "", ids), 24)
            view = deployment.boundary.view(deployment.shows)
        guess = attack.recover(view, np.random.default_rng(0))
        assert guess.ids == ids, options
        assert guess.certified, options
