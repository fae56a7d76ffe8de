"""Training visual tokenizers."""
