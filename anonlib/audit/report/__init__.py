"""The report that a privacy officer signs; report.html and report.pdf show what report.json says, and nothing else."""
