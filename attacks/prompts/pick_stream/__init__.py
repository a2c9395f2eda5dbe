"""Prompt Obfuscation's other side: several prompts stand side by side, one is real, the rest are fakes."""

from attacks.prompts.pick_stream.attack import PickStream

__all__ = ["PickStream"]
