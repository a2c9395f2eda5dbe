"""A life of a defense in a few lines, for tests of what comes after it."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from attacks.base import Attack, Public
from experiments.trials.pursuing import pursue
from experiments.trials.pursuit import Findings, Pursuit
from experiments.trials.seen import Cost, Seen, ServedRequest, Truth, Utility
from smd_research.boundary import AdversaryView, Ledger
from smd_research.data.prompts import Prompt
from smd_research.defenses.base import Generation


def seen(
    bundle: Any, prompts: Sequence[Prompt], views: Sequence[AdversaryView], prepared: Any = None, **means: Any
) -> Seen:
    """Prompts that were served at some cost."""
    utility = {"kl": 0.5, "greedy_equal": 1.0, "logit_error": 0.1, "nll": 2.0, "nll_tokens": 2.0}
    sent = [4 * len(prompt.ids) for prompt in prompts]
    ledgers = [Ledger(messages=3, rounds=1, bytes_to_untrusted=n, bytes_to_trusted=12, frame_bytes=60) for n in sent]
    requests = [ServedRequest(ledger, Generation((1, 2, 3), 0.01, 0.05), (1000, 2000)) for ledger in ledgers]
    return Seen(
        prepared,
        bundle,
        None,
        tuple(views),
        Truth(bundle, tuple(prompts)),
        Utility(tuple(utility for _ in prompts)),
        Cost(tuple(requests), means),
    )


def findings(attack: Attack, public: Public, lived: Seen, seed: int = 0, **workbench: Any) -> Findings:
    """What an attack makes of it."""
    plan = cast(Any, SimpleNamespace(cell=SimpleNamespace(seed=seed)))
    return pursue(attack, Pursuit(plan, cast(Any, SimpleNamespace(**workbench)), lived, public, None, lambda _: None))
