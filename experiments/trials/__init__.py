"""One experiment: prepared, lived through, attacked, scored, recorded."""
