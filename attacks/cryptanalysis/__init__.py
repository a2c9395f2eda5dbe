"""What encoded and public text say of a secret substitution: counts, bigrams, searches, a language model as judge."""
