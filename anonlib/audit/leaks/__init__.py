"""What must not be in a release, looked for in every file of it."""
