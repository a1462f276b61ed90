"""How units of work run: workers, retries, rounds, serially or on Ray, and what is measured of them."""
