"""Conversations, with pictures or without: what a model learns to answer."""
