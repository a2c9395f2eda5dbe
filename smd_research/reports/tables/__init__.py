"""Tables: a small model, and the layouts that fill it from records and benches."""
