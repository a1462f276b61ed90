"""Photos are decoded in processes of their own, because a file made for it can crash a C library, or never end."""

from anonlib.media.sandbox.process import (
    Decoders,
    changed_blocks_apart,
    decode_apart,
    header_bytes_apart,
    replace_apart,
    sandbox_layers,
)

__all__ = ["Decoders", "changed_blocks_apart", "decode_apart", "header_bytes_apart", "replace_apart", "sandbox_layers"]
