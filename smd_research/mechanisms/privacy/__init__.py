"""Differential privacy and its relatives: mechanisms over tokens and vectors, their channels, their audits."""
