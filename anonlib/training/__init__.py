"""How the shipped numbers were made; nothing else imports it."""
