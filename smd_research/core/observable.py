"""What an untrusted party can see."""

from enum import StrEnum


class Observable(StrEnum):
    """Kinds of values a defense shows to the untrusted party; an attack names the kinds it needs."""

    TOKEN_IDS = "token ids"
    SANITISED_IDS = "sanitised token ids"
    EMBEDDINGS = "embeddings"
    HIDDEN_STATES = "hidden states"
    OUTPUT_STATES = "hidden states of generated tokens"
    QUERIES = "queries"
    PARTIAL_ATTENTION = "partial attention"
    MERGED_ATTENTION = "merged attention"
    KV_CACHE = "KV cache"
    MASKED_ACTIVATIONS = "masked activations"
    EXPOSED_WEIGHTS = "exposed weights"
    PLAIN_PRODUCTS = "plain inputs and outputs of secret products"
    LOGITS = "logits"
    OUTPUT_TOKENS = "output tokens"
    GRADIENTS = "gradients"
    ENCODED_IDS = "keyed token ids"
    SHAKEN_WEIGHTS = "shaken weights"
    LABELS = "labels"
    LENGTH = "prompt length"
