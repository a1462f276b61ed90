"""The networks that anonlib runs: what exists, how it is fetched and checked, and what runs it."""
