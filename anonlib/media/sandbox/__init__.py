"""Photos are decoded in processes of their own, because a file made for it can crash a C library, or never end."""

from anonlib.media.sandbox.pool import Decoders, decode_apart, header_bytes_apart, sandbox_layers
from anonlib.media.sandbox.process import NoDecoder

__all__ = ["Decoders", "NoDecoder", "decode_apart", "header_bytes_apart", "sandbox_layers"]
