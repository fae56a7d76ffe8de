"""Embedded text: the standard library's own sources, and numbers in words."""
