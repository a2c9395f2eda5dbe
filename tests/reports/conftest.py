"""Puts the synthetic grid (``grid.py``) beside this file within reach of every test of reports."""
