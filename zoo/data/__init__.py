"""Embedded data sets, readers, batching."""
