"""A restored model on held-out text, beside the original and the exposed one: the runner alone knows the original."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.base import Public
from experiments.trials.exposing import exposure
from smd_research import metrics
from smd_research.core.errors import LabError
from smd_research.core.guess import WeightGuess
from smd_research.core.progress import track
from smd_research.mechanisms.decomposition.parameters import SecretParts
from smd_research.metrics import Estimate
from smd_research.models.bundle import Bundle
from smd_research.models.linears import linear_layers, weight_of


@dataclass(frozen=True)
class Scores:
    """A model on held-out documents: summed negative log-likelihood and greedy tokens of each."""

    nll: tuple[float, ...]
    greedy: tuple[Tensor, ...]


@torch.inference_mode()
def scores(bundle: Bundle, documents: Sequence[Sequence[int]], label: str) -> Scores:
    """Teacher-forced over whole documents of two tokens or more."""
    nll, greedy = [], []
    for document in track(documents, label):
        ids = torch.tensor([document], device=bundle.device)
        logits = bundle.model(input_ids=ids[:, :-1], use_cache=False).logits[0].float().cpu()
        nll.append(metrics.negative_log_likelihood(logits, ids[0, 1:].cpu()))
        greedy.append(logits.argmax(-1))
    return Scores(tuple(nll), tuple(greedy))


def restored(exposed: Bundle, guess: WeightGuess) -> Bundle:
    """A copy of the exposed model with the guessed tensors in place.

    Raises:
        LabError: for a tensor that the model does not have.
    """
    model = copy.deepcopy(exposed.model)
    unknown = model.load_state_dict(dict(guess.weights), strict=False).unexpected_keys
    if unknown:
        raise LabError(f"the attack names tensors that the model does not have: {', '.join(unknown[:3])}")
    return replace(exposed, model=model)


def compared(
    original: Bundle,
    public: Public,
    guess: WeightGuess,
    relative: Bundle | None,
    documents: Sequence[Sequence[int]],
    true: Scores,
    scratch: Sequence[float] | None,
) -> tuple[dict[str, Estimate], Sequence[float]]:
    """Every metric of a restored model, and its summed negative log-likelihood of each document.

    Args:
        original: the true model.
        public: holds the exposed one.
        guess: the attack's.
        relative: the public model that the attack drew on, if any.
        documents: token ids of held-out documents, two or more each.
        true: scores of the true model on them.
        scratch: what the from-scratch control, if there is one, gives to each of the same documents.
    """
    tokens = [len(document) - 1 for document in documents]
    mended = restored(public.bundle, guess)
    out = scores(public.bundle, documents, "exposed")
    # An attack that mends nothing leaves the exposed model, which has its scores.
    back = scores(mended, documents, "restored") if guess.weights else out
    equal = [float((a == b).float().mean()) for a, b in zip(true.greedy, back.greedy, strict=True)]
    found = {
        "original_loss": metrics.mean_by_token(true.nll, tokens),
        "exposed_loss": metrics.mean_by_token(out.nll, tokens),
        "restored_loss": metrics.mean_by_token(back.nll, tokens),
        "restored_perplexity": metrics.perplexity(back.nll, tokens),
        "restored_top1": metrics.summarise("restored_top1", equal),
        "rec_exposed": metrics.recovery(out.nll, back.nll, true.nll),
        **_weight_errors(original, public, mended),
        "attack_steps": Estimate(float(guess.spent.steps)),
        **{name: Estimate(value) for name, value in guess.facts.items()},
    }
    if scratch is not None:
        found["scratch_loss"] = metrics.mean_by_token(scratch, tokens)
        found["rec_scratch"] = metrics.recovery(scratch, back.nll, true.nll)
    if relative is not None:
        known = scores(relative, documents, "public relative")
        found["public_loss"] = metrics.mean_by_token(known.nll, tokens)
        found["private_gain"] = metrics.recovery(known.nll, back.nll, true.nll)
    if secret := public.published(SecretParts):
        found |= exposure(original, public.bundle, secret.ranks, true.nll, out.nll, tokens)
    return {name: one for name, one in found.items() if not math.isnan(one.mean)}, back.nll


def _weight_errors(original: Bundle, public: Public, mended: Bundle) -> dict[str, Estimate]:
    """Over the matrices with a secret part, as the public ranks name them: all, and by form."""
    secret = public.published(SecretParts)
    if secret is None:
        return {}
    models = [linear_layers(bundle) for bundle in (mended, original, public.bundle)]
    names = [name for name in models[0] if secret.ranks.get(name)]
    one, two, three = ([weight_of(layers[name]).cpu() for name in names] for layers in models)
    matrices = list(zip(one, two, three, strict=True))
    members = {"weight_error": matrices}
    for guess, truth, exposed in matrices:
        m, n = truth.shape
        form = "square" if m == n else "tall" if m > n else "wide"
        members.setdefault(f"weight_error_{form}", []).append((guess, truth, exposed))
    return {name: Estimate(metrics.weight_error(some)) for name, some in members.items()}
