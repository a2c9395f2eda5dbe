"""Attacks on prompts, one by one."""

import time

from attacks.base import PromptAttack
from experiments.trials.guesses import Attempt, scored
from experiments.trials.pursuit import READS_PROMPTS, Findings, Kind, Pursuit
from experiments.trials.seen import TUNE
from smd_research.core.progress import track
from smd_research.core.seeds import generator


def pursue(attack: PromptAttack, pursuit: Pursuit) -> Findings:
    """Fit the attack once, then recover every prompt from its view."""
    truth, shown = pursuit.seen.truth, pursuit.shown(attack)
    attack.fit(pursuit.public)
    attempts = []
    for position, view in enumerate(track(shown.views, "attack")):
        began = time.perf_counter()
        guess = attack.recover(view, generator(pursuit.seed, "attack", truth.prompts[position].id))
        refused = {"refused": float(shown.refused[position])} if shown.refused else {}
        attempts.append(Attempt(guess, time.perf_counter() - began, refused))
    return Findings(scored(attempts, truth.prompts, truth.bundle))


KIND = Kind(PromptAttack, pursue, {TUNE: READS_PROMPTS})
