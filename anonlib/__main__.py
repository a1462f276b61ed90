"""`python -m anonlib`: the command, as the checkout has it."""

from anonlib.cli import main

main()
