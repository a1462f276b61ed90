"""Pixels in, arrays out: decoding, detection, mesh, embeddings, attributes, blending."""
