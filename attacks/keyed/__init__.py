"""Attacks on keyed shaking: the cloud holds encoded ids and a shaken table, and looks for the secret substitution."""
