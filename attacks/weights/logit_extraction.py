"""The output layer from logits alone (Carlini et al., arXiv 2403.06634): the black-box floor of model extraction.

Logits are ``W h`` with ``h`` of the model's width, far below the vocabulary: the matrix of many logit vectors has that
rank, and its row space is the column space of ``W``. So whoever may see logits has the width (one less behind a
LayerNorm without bias), and the output layer up to an unknown square matrix. Weight decomposition leaves the head with
the device anyway; the figure says how much of it nobody can keep who hands out logits.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from attacks.base import Public, WeightAttack
from attacks.exposure import protected
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import LowRankOutput, PromptIds, Tokens
from smd_research.core.errors import NotApplicableError
from smd_research.core.guess import Spent, WeightGuess
from smd_research.core.observable import Observable
from smd_research.models.structure import sharing_copy


class LogitExtraction(WeightAttack):
    """Finds the width and the space of the output layer; restores no weight, as a square matrix stays unknown.

    ``facts``: the width found, the overlap of the space found with that of the true head (mean squared cosine; a random
    space scores width / vocabulary), and the logit vectors used. ``residual`` is the largest singular value left out
    over the smallest kept one.
    """

    needs = frozenset({Observable.EXPOSED_WEIGHTS, Observable.PLAIN_PRODUCTS, Observable.LOGITS})

    def fit(self, public: Public) -> None:
        """Take in public knowledge.

        Raises:
            NotApplicableError: when nothing is secret, or the head is no linear layer.
        """
        if public.bundle.model.get_output_embeddings() is None:
            raise NotApplicableError(f"family '{public.bundle.family}' has no output head")
        self._targets = protected(public)
        super().fit(public)

    def restore(self, views: Sequence[AdversaryView], rng: np.random.Generator) -> WeightGuess:
        """Collect logits and factor them.

        Raises:
            NotApplicableError: when there are not more logit vectors than the model is wide.
        """
        logits = torch.cat([self._logits(view) for view in views])
        if len(logits) <= self.public.bundle.geometry.width:
            raise NotApplicableError(
                f"{len(logits)} logit vectors of a model {self.public.bundle.geometry.width} wide: serve more prompts"
            )
        basis, gap = output_space(logits)
        head = self.public.bundle.model.get_output_embeddings().weight.detach().double()
        truth = torch.linalg.qr(head).Q
        overlap = float((basis.T @ truth).square().sum() / max(basis.shape[1], truth.shape[1]))
        facts = {"width_found": float(basis.shape[1]), "head_overlap": overlap, "logit_vectors": float(len(logits))}
        return WeightGuess({}, residual=gap, spent=Spent(steps=len(logits)), facts=facts)

    @torch.inference_mode()
    def _logits(self, view: AdversaryView) -> Tensor:
        """The logits ``[rows, vocab]`` of a request, as the device had them: its own part and what it was answered."""
        prompt = [int(token) for message in view.of(PromptIds) for token in message.ids]
        ids = [*prompt, *(int(token) for message in view.of(Tokens) for token in message.ids)]
        answers: dict[int, list[Tensor]] = {}
        for message in view.of(LowRankOutput):
            answers.setdefault(message.product, []).append(message.y)
        model = sharing_copy(self.public.bundle.model)
        for target in self._targets:
            secret = torch.cat(answers[target.product])[:, target.rows]
            model.get_submodule(target.name).register_forward_hook(_Adding(secret))
        rows = len(torch.cat(answers[self._targets[0].product]))
        device = self.public.bundle.device
        logits: Tensor = model(input_ids=torch.tensor([ids[:rows]], device=device), use_cache=False).logits[0]
        return logits.double().cpu()


class _Adding:
    """A hook that adds the secret part's share ``[rows, m]`` to a layer's output."""

    def __init__(self, share: Tensor) -> None:
        self._share = share

    def __call__(self, module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + self._share.to(output)


def output_space(logits: Tensor) -> tuple[Tensor, float]:
    """The space in which logits ``[rows, vocab]`` lie, at the widest gap between neighbouring singular values.

    Returns:
        Orthonormal columns ``[vocab, width]``, and the first singular value left out over the last one kept.
    """
    found = torch.linalg.svd(logits, full_matrices=False)
    ratios = found.S[1:] / found.S[:-1].clamp(min=1e-300)
    width = int(ratios.argmin()) + 1
    return found.Vh[:width].T, float(ratios[width - 1])
