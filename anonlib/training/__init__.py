"""How the shipped numbers were made, and how a user makes a decoder; only the command imports it."""
