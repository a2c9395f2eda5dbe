"""The small shared nouns: observables, guesses, guarantees, seeds, errors."""
