"""Benches: each module names its cases; both sides of a case run interleaved in one process."""
