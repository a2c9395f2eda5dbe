"""Prompt Obfuscation's sampler: bins of probability, fakes drawn from them, the law that an attacker knows."""
