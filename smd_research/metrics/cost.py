"""Cost: time, traffic and memory. Times come with each generation, the boundary's ledger counts the traffic."""

import psutil

from smd_research.metrics.card import Card

MEGABYTE = 1e6


COUNTED = (
    Card.cost("ttft_ms", "first token", "ms", "time to first token"),
    Card.cost("tpot_ms", "per token", "ms", "time per output token after the first"),
    Card.cost("tokens_per_s", "tokens/s", "1/s", "tokens generated per second", better="higher"),
    Card.cost("messages", "messages", "", "messages across the boundary, both ways, a prompt"),
    Card.cost("rounds", "rounds", "", "request-reply exchanges a prompt"),
    Card.cost("bytes_to_untrusted", "to provider", "B", "payload bytes to the untrusted party, a prompt"),
    Card.cost("bytes_to_trusted", "to user", "B", "payload bytes to the trusted party, a prompt"),
    Card.cost(
        "offline_s", "offline", "s", "time spent ahead of a prompt on its masks: its share, by operations, of all"
    ),
    Card.cost("offline_gflop", "offline work", "GFLOP", "operations spent ahead of a prompt on its masks"),
    Card.cost("masks_mb", "masks", "MB", "cancellation masks that a prompt used up, 8 bytes a residue"),
    Card.cost("bank_mb", "mask bank", "MB", "cancellation masks held when a prompt was answered"),
    Card.cost("plain_pairs", "plain pairs", "", "plain inputs and outputs of a secret product that a prompt gave away"),
    Card.cost("weights_mb", "weights", "MB", "weights allocated by both parties"),
    Card.cost("kv_mb", "KV cache", "MB", "KV cache held by both parties at the end of a prompt"),
    Card.cost("kv_trusted_mb", "KV, user's side", "MB", "KV cache held by the trusted party by then"),
    Card.cost("kv_untrusted_mb", "KV, provider's side", "MB", "KV cache held by the untrusted party by then"),
)
"""Times, traffic and memory of a prompt."""


def resident_mb(pid: int | None = None) -> float:
    """Resident memory of a process (this one by default) in megabytes."""
    return psutil.Process(pid).memory_info().rss / MEGABYTE


RESIDENT_MB = Card.cost("resident_mb", "resident", "MB", "resident memory of the processes of both parties")

MODELLED_S = Card.cost(
    "modelled_s", "link time", "s", "time the traffic would take over the modelled link; modelled, not measured"
)
