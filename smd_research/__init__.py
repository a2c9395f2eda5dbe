"""smd-research: a laboratory for private LLM serving.

Defenses keep a prompt or a model from the other party, attacks try to get it back, and one run says what was leaked,
what it cost in quality, and what it cost in time and traffic.
"""

__version__ = "0.1.0"
