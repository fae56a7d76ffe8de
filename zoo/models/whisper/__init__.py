"""Whisper: sound to text in a hundred languages, with times (Radford et al. 2022)."""
