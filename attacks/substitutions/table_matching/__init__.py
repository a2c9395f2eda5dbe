"""The shaken table matched to the public one."""

from attacks.substitutions.table_matching.attack import TableMatching

__all__ = ["TableMatching"]
