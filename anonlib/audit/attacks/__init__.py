"""What an attacker gets out of a release: identification, verification, and what its records give away."""
