"""Active queries: the provider chooses what to ask a vault."""

from attacks.prompts.active_queries.attack import ActiveQueries

__all__ = ["ActiveQueries"]
