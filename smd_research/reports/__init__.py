"""Reports: points, batteries, claims; tables, figures and pages. They read records only."""

from smd_research.reports.comparing import Compared, compare, compare_all

__all__ = ["Compared", "compare", "compare_all"]
