"""Encoders and decoders: pixels to a grid of vectors, and back."""
