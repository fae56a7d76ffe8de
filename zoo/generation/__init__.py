"""Decoding strategies over any model."""
