"""Decoding strategies over any model: autoregressive, beam, speculative, batched, masked-iterative.

A strategy knows nothing of families. It sees `Steps` (zoo.generation.steps): a batch of sequences
that can be asked for the scores of what comes next, reordered, and taken back.
"""
