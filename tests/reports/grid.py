"""A synthetic grid of records, shaped like a real sweep, for tests of tables, figures and reports."""

import math
from typing import Any

import numpy as np

from smd_research.core.cell import Cell
from smd_research.core.seeds import generator
from smd_research.data.prompts import TokenSpan
from smd_research.metrics import summarise
from smd_research.metrics.spread import Spread
from smd_research.records import Item, Record, Status, items_frame
from smd_research.records.bench import BenchCase

PROMPTS = 12
NOTE = "Seen today : Ann Lee , born 4 May 1984 , record 55 - 201 . She reports chest pain ; started bisoprolol 5 mg ."
TEXT = NOTE.split()
SPANS = [TokenSpan(3, 5, "name"), TokenSpan(7, 10, "date"), TokenSpan(12, 15, "record number")]
WORDS = "Bob Kay 7 June 1990 44 102 he knee ramipril to on clinic with for and"
OTHER = WORDS.split()

DEFENSES: list[tuple[dict[str, Any], dict[str, float]]] = [
    ({"name": "none"}, {"kl": 0.0, "perplexity": 9.1, "tpot_ms": 4.1, "bytes": 4.2e2}),
    ({"name": "split", "layer": 1}, {"kl": 0.0, "perplexity": 9.1, "tpot_ms": 5.0, "bytes": 3.2e5}),
    ({"name": "split", "layer": 4}, {"kl": 0.0, "perplexity": 9.1, "tpot_ms": 5.6, "bytes": 3.2e5}),
    ({"name": "smd"}, {"kl": 2e-12, "perplexity": 9.1, "tpot_ms": 6.3, "bytes": 2.6e5}),
    ({"name": "dp_text", "epsilon": 4.0}, {"kl": 3.1, "perplexity": 410.0, "tpot_ms": 4.2, "bytes": 4e2}),
    ({"name": "dp_text", "epsilon": 8.0}, {"kl": 1.6, "perplexity": 88.0, "tpot_ms": 4.2, "bytes": 4e2}),
    ({"name": "dp_text", "epsilon": 12.0}, {"kl": 0.5, "perplexity": 21.0, "tpot_ms": 4.2, "bytes": 4e2}),
    ({"name": "dp_text", "epsilon": 16.0}, {"kl": 0.1, "perplexity": 10.7, "tpot_ms": 4.3, "bytes": 4e2}),
]
RATES = {
    "random": lambda d: 0.0,
    "prior": lambda d: 0.14,
    "nearest_token": lambda d: {4.0: 0.15, 8.0: 0.3, 12.0: 0.62, 16.0: 0.86}.get(d.get("epsilon"), math.nan),
    "bayes_token": lambda d: {4.0: 0.2, 8.0: 0.4, 12.0: 0.74, 16.0: 0.93}.get(d.get("epsilon"), math.nan),
    "vocab_matching": lambda d: 0.99 if d["name"] == "split" else math.nan,
    "partial_attention_inversion": lambda d: 0.96 if d["name"] == "smd" else math.nan,
}


def item(rng: np.random.Generator, prompt: int, rate: float, base: dict[str, float]) -> Item:
    hit = rng.random(len(TEXT)) < rate
    wrong = [None if rng.random() < 0.2 else str(rng.choice(OTHER)) for _ in TEXT]
    guess = [token if ok else other for token, ok, other in zip(TEXT, hit, wrong, strict=True)]
    spans = [bool(hit[s.start : s.end].all()) for s in SPANS]
    scores = {"token_accuracy": float(hit.mean()), "span_exact": float(np.mean(spans)), "control_span_exact": 0.02}
    jitter = 1 + 0.05 * float(rng.standard_normal())
    costs = {"kl": base["kl"] * jitter, "perplexity": base["perplexity"] * jitter}
    costs |= {"tpot_ms": base["tpot_ms"] * jitter, "ttft_ms": base["tpot_ms"] * 1.5 * jitter}
    costs |= {"bytes_to_untrusted": base["bytes"], "bytes_to_trusted": base["bytes"] * 0.6}
    texts = [token if token in ",.;" or i == 0 else f" {token}" for i, token in enumerate(TEXT)]
    shown = [None if g is None else g if g in ",.;" or i == 0 else f" {g}" for i, g in enumerate(guess)]
    return Item(f"clinical-{prompt:03d}", {**scores, **costs}, texts, shown, SPANS)


def records() -> list[Record]:
    """Every defense against every attack."""
    found = []
    for defense, base in DEFENSES:
        for attack, rate_of in RATES.items():
            cell = Cell(
                model={"name": "embedded"},
                data={"name": "synthetic"},
                defense=defense,
                attack={"name": attack},
                n_prompts=PROMPTS,
                max_new_tokens=32,
            )
            rate = rate_of(defense)
            if math.isnan(rate):
                reason = f"{attack} needs what {defense['name']} does not show"
                found.append(Record(Status.NOT_APPLICABLE, cell, reason))
                continue
            rng = generator(0, defense["name"], str(defense), attack)
            items = [item(rng, prompt, rate, base) for prompt in range(PROMPTS)]
            metrics = {name: summarise(name, [i.metrics[name] for i in items]) for name in items[0].metrics}
            found.append(Record(Status.OK, cell, "", metrics, items_frame(items), {"python": "3.12"}))
    return found


def bench(users: int, mode: str, value: float, **extra: float) -> BenchCase:
    return BenchCase(
        f"m users={users} {mode}", value, math.nan, math.nan, "ms/token", 5, {"users": users, "mode": mode},
        {name: Spread(x, x, x) for name, x in extra.items()}, Spread(value, 0.9 * value, 1.1 * value),
    )  # fmt: skip


BENCH_CASES = [bench(1, "none", 4.0), bench(1, "smd", 5.0, peak_mb=20), bench(8, "none", 10.0), bench(8, "smd", 16.0)]
