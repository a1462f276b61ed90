"""What a stranger runs: a release checked against its certificate, with the release alone."""
