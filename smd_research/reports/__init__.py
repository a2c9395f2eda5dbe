"""Reports: points, batteries, claims; tables, figures and pages. They read records only."""
