"""What an attacker gets out of a release: identification, verification, linkage, and what its records give away."""
