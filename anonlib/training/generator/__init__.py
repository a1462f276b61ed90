"""ksame-net: a convolutional decoder from an identity vector and a wanted look to a canonical texture."""
