"""Commands: run, train, table, bench, report, list."""
