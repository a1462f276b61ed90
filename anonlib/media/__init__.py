"""Bytes to pixels and back: codecs, colour, the decoder sandbox, and reading ahead."""
