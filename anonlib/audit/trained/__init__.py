"""Attackers that learn: who holds clear and anonymized photos of some people, and goes after the others."""
