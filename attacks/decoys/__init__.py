"""Prompt Obfuscation's other side: several prompts stand side by side, one is real, the rest are fakes."""
