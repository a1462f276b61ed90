"""A person looks at a sample of the release and at what was held back, and decides."""
