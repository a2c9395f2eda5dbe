"""Picking the real one among several prompts: how often, and how far beyond chance an attacker could.

With ``pi`` an attacker's probabilities of each of ``lambda + 1`` prompts being real, nobody who believes ``pi`` can
expect to pick right more often than ``max pi``; ``eps_eff = max pi - 1/(lambda + 1)`` is the excess over chance, to be
read beside the nominal epsilon.
"""

import math
from collections.abc import Iterable, Sequence

from smd_research.core.guess import Guess, Verdict
from smd_research.data.prompts import TokenSpan
from smd_research.metrics.card import Card

JUDGES = {
    "joint": "all evidence together",
    "likelihood_ratio": "domain-tuned likelihood over the simulated sampler's",
    "likelihood": "the served model's likelihood of the secrets",
    "likelihood_domain": "a domain-tuned model's likelihood of the secrets",
    "sampler_law": "the sampler's own model and law",
    "discriminator": "a classifier trained on sampled fakes of public text",
    "plausibility": "the served model's likelihood of secrets and what follows them",
    "retokenisation": "ids that are not what their text encodes to",
    "consistency": "replay against the transcript",
    "intersection": "values that come back in repeated requests",
    "termination": "lengths and stop times",
    "random": "no evidence",
}
"""Lines of evidence by which a stream is picked."""


def found(truth: Sequence[int], guess: Guess, verdict: Verdict, spans: Iterable[TokenSpan]) -> float:
    """1 when the prompt picked holds the true tokens in every secret span; NaN for a prompt without secrets."""
    picked = guess.candidates[verdict.picked]
    hits = [list(truth[s.start : s.end]) == list(picked[s.start : s.end]) for s in spans]
    return float(all(hits)) if hits else math.nan


def eps_eff(verdict: Verdict) -> float:
    """``max posterior - 1/(lambda + 1)``."""
    return max(verdict.posterior) - 1 / len(verdict.posterior)


def streams(truth: Sequence[int], guess: Guess, spans: Sequence[TokenSpan]) -> dict[str, float]:
    """All metrics of a guess among several prompts; none where there was one prompt only."""
    if not guess.verdicts:
        return {}
    first, chance = guess.verdicts[0], 1 / len(guess.candidates)
    right = found(truth, guess, first, spans)
    values = {
        "stream_found": right,
        "stream_chance": chance,
        "stream_advantage": right - chance,
        "real_stream_read": _among(truth, guess, spans),
    }
    for verdict in guess.verdicts:
        right = found(truth, guess, verdict, spans)
        values[f"found_{verdict.judge}"] = right
        values[f"max_posterior_{verdict.judge}"] = max(verdict.posterior)
        values[f"eps_eff_{verdict.judge}"] = eps_eff(verdict)
        if verdict.judge == "intersection":
            values["requests_needed"] = float(verdict.requests) if verdict.requests and right else math.nan
    return values


def _among(truth: Sequence[int], guess: Guess, spans: Sequence[TokenSpan]) -> float:
    """1 when some candidate is the true prompt, as far as the secrets go: only then can it be picked."""
    if not spans:
        return math.nan
    true = [tuple(truth[s.start : s.end]) for s in spans]
    return float(any(true == [tuple(read[s.start : s.end]) for s in spans] for read in guess.candidates))


_CHANCE = "1 / number of streams: stream_chance"

STREAMS = (
    Card.leak("stream_found", "real stream found", "prompts whose real stream the attack picked", _CHANCE),
    Card.known("stream_chance", "chance", "1 / number of streams"),
    Card.leak("real_stream_read", "real stream read", "prompts whose secrets the attack read in some stream", "none"),
    Card(
        "stream_advantage", "advantage", "privacy", "", "lower", "0", 1.0, "excess",
        "real streams found minus 1 / number of streams",
    ),
    Card(
        "requests_needed", "requests needed", "privacy", "requests", "higher", "never", None, "positive",
        "requests after which intersection was 95 % sure of a stream, over prompts where it was, and right",
    ),
)  # fmt: skip
"""Picking the real stream by all evidence."""


def _cards_of_judge(judge: str, evidence: str) -> tuple[Card, ...]:
    name = judge.replace("_", " ")
    hope = f"largest probability of being real by {evidence}: what picking by it can hope for"
    excess = f"max posterior minus 1 / number of streams, by {evidence}"
    return (
        Card.leak(f"found_{judge}", f"found by {name}", f"real streams picked by {evidence}", _CHANCE),
        Card.leak(f"max_posterior_{judge}", f"max posterior, {name}", hope, _CHANCE),
        Card.leak(f"eps_eff_{judge}", f"eps_eff, {name}", excess, "0"),
    )


BY_EVIDENCE = tuple(card for judge in JUDGES.items() for card in _cards_of_judge(*judge))
"""Picking the real stream by each line of evidence."""

OBFUSCATION = (
    Card(
        "eps_eff", "eps_eff", "privacy", "", "lower", "0", 1.0, "rate",
        "largest posterior of a stream under the sampler's own model and law, minus 1 / number of streams",
    ),
    Card.known("nominal_bound", "claimed bound", "success claimed to be the most: 1 / streams + the epsilon used"),
    Card(
        "widened_epsilon", "widened epsilon", "privacy", "", "lower", "", None, "positive",
        "largest epsilon that a secret's bins were widened to, to find enough fakes",
    ),
    Card.cost("sampling_ms", "sampling", "ms", "drawing the fakes of a prompt, part of the time to its first token"),
)  # fmt: skip
"""What a vault that hides a prompt among virtual ones says of its fakes."""
