"""How the shipped weights were made; only `jobs/` and tests import it."""
