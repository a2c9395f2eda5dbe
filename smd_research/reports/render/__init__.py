"""Tables and prompts as text, LaTeX, terminal output and a page."""
