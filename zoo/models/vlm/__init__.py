"""Vision-language models: a vision tower, an adapter and a language model, joined in a node."""
