"""Attacks that are trained: the attacker holds clear and anonymized photos of some people, and goes after others."""
