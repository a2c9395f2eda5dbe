"""Picking the real one among several prompts: how often, and how far beyond chance an attacker could.

With ``pi`` an attacker's probabilities of each of ``lambda + 1`` prompts being real, nobody who believes ``pi`` can
expect to pick right more often than ``max pi``; ``eps_eff = max pi - 1/(lambda + 1)`` is the excess over chance, to be
read beside the nominal epsilon.
"""

import math
from collections.abc import Iterable, Sequence

from smd_research.core.guess import Guess, Verdict
from smd_research.data.prompts import TokenSpan

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
