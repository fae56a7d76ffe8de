"""Objectives of speech recognition."""
