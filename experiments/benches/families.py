"""Every causal language model of the installed transformers: served exactly, or refused in one line.

Each family's published shape is shrunk and run on a text of its own, longer than that of the self-check: whole and
token by token, cut before every block, its layer-0 table turned to other positions, and the stock model's own decoding.
What is accepted and differs by more than ``WRONG`` would give numbers that look right.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from experiments.benches._shapes import causal_families, small_bundle
from experiments.benches.case import Case, Measured, Settings
from smd_research.core.errors import LabError
from smd_research.core.progress import track
from smd_research.models.attention import LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.decoding import StockDecoder
from smd_research.models.extension import ExtensionEngine
from smd_research.models.hooked import HookedModel
from smd_research.models.self_check import ensure_plain

TOKENS, STEPS, CUT_STEPS, PLACES = 40, 6, 1, (5, 33)
"""Tokens of the text, how many come one by one, how many at a cut, and where layer-0 tables are compared."""
WRONG = 1e-3
"""Largest error that is no error, in standard deviations of the logits, or relative to the largest key."""


@dataclass(frozen=True)
class JudgedFamily:
    """What became of a family.

    Attributes:
        verdict: ``exact``, ``refused``, ``not built``, ``wrong`` or ``raw error``.
        why: the line it was refused with, or what went wrong.
        errors: of an accepted one, by what was run.
        seconds: all of it.
    """

    verdict: str
    why: str = ""
    errors: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def cases(settings: Settings) -> Iterator[Case]:
    """One row a family: 1 where it was judged, with the errors of what is accepted."""
    logging.set_verbosity_error()
    for family in track(causal_families(), "families"):
        side = partial(_counted, family, settings.seed)
        yield Case(family, side, None, "families", repeats=1, warmup=0, labels={"family": family})


def _counted(family: str, seed: int) -> Measured:
    judged = judge(family, seed)
    flags = {f"{name.replace(' ', '_')}_families": float(judged.verdict == name) for name in VERDICTS}
    figures = {**judged.errors, **flags, "seconds": judged.seconds}
    return Measured(1.0, figures, {"verdict": judged.verdict, "why": judged.why})


VERDICTS = ("exact", "refused", "not built", "wrong", "raw error")


def judge(family: str, seed: int = 0, cuts: Sequence[int] | None = None, **features: Any) -> JudgedFamily:
    """Build a family's small shape and try everything on it.

    Args:
        family: what transformers calls it (``model_type``).
        seed: of weights and text.
        cuts: blocks before which the model is cut; None cuts before every one.
        features: values of the configuration that are to be others than published.
    """
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bundle = small_bundle(family, seed, **features)
            rows = min(TOKENS, bundle.geometry.context)
            ids = torch.randint(5, bundle.geometry.vocab, (1, rows), generator=torch.Generator().manual_seed(seed))
            right = _stock(bundle, ids)
    except LabError as error:
        return JudgedFamily("refused", str(error), seconds=time.perf_counter() - began)
    except Exception as error:  # whatever a library raises where it cannot build a shape
        return JudgedFamily("not built", _line(error), seconds=time.perf_counter() - began)
    errors: dict[str, float] = {}
    try:
        for name, run in _runs(bundle, ids, right, cuts).items():
            errors[name] = run()
    except LabError as error:
        return JudgedFamily("refused", str(error), seconds=time.perf_counter() - began)
    except Exception as error:  # what must not happen: it is shown
        return JudgedFamily("raw error", _line(error), seconds=time.perf_counter() - began)
    worst = max(errors, key=lambda name: errors[name])
    exact = errors[worst] <= WRONG
    return JudgedFamily("exact" if exact else "wrong", "" if exact else worst, errors, time.perf_counter() - began)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


@torch.inference_mode()
def _stock(bundle: Bundle, ids: Tensor) -> Tensor:
    logits: Tensor = bundle.model(input_ids=ids, use_cache=False).logits[0]
    return logits


def _runs(bundle: Bundle, ids: Tensor, right: Tensor, cuts: Sequence[int] | None) -> dict[str, Callable[[], float]]:
    """What is tried, by the name of its error."""

    def error(logits: Tensor, rows: slice = slice(None)) -> float:
        return float((logits - right[rows]).abs().max() / right.std())

    def cut() -> float:
        before = range(bundle.geometry.layers + 1) if cuts is None else cuts
        return max(error(_in_parts(bundle, ids, CUT_STEPS, (None, block), (block, None))) for block in before)

    def plain() -> float:
        ensure_plain(bundle)
        decoder = StockDecoder(bundle)
        return error(
            torch.stack([decoder.step(part) for _, part in _parts(ids, STEPS)]), slice(ids.shape[1] - STEPS - 1, None)
        )

    return {
        "whole_sd": lambda: error(_in_parts(bundle, ids, STEPS, (None, None))),
        "cuts_sd": cut,
        "plain_sd": plain,
        "table_relative": lambda: _table_error(bundle),
    }


def _parts(ids: Tensor, steps: int) -> list[tuple[int, Tensor]]:
    rows = ids.shape[1]
    known = rows - steps
    return [(0, ids[:, :known]), *((place, ids[:, place : place + 1]) for place in range(known, rows))]


def _in_parts(bundle: Bundle, ids: Tensor, steps: int, *stretches: tuple[int | None, int | None]) -> Tensor:
    """Logits ``[rows, vocab]`` of stretches of blocks one after the other, the last ``steps`` tokens one by one."""
    models = [(HookedModel(bundle, first, last), LocalAttention()) for first, last in stretches]
    rows: list[Tensor] = []
    for start, part in _parts(ids, steps):
        positions, out = torch.arange(start, start + part.shape[1]), part
        for index, (model, attention) in enumerate(models):
            out = model.forward(attention, positions, **({"hidden": out} if index else {"ids": out}))  # type: ignore[arg-type]
        rows.append(out[0])
    return torch.cat(rows)


def _table_error(bundle: Bundle) -> float:
    """Layer-0 keys and queries of the vocabulary turned to a position against those computed there."""
    engine, errors = ExtensionEngine(bundle, 1), []
    for place in (min(place, bundle.geometry.context - 1) for place in PLACES):
        ours, real = engine.layer0(place), engine.computed(place)
        errors += [float((a - b).abs().max() / b.abs().max()) for a, b in ((ours.q, real.q), (ours.k, real.k))]
    return max(errors)
