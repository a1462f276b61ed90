"""Trains the network of the method `embedding`: another person's features, hidden in a face that still looks itself."""
