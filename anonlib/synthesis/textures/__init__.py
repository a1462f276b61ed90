"""Where the texture of a surrogate comes from."""
