"""Pure mathematics that a defense uses and its attacker knows (Kerckhoffs)."""
