"""Surrogate in, pixels out: the canonical frame, the textures, the renderer, the redactions."""
