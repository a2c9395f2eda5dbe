"""What ``smd`` dispatches to: one module a command."""
