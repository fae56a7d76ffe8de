"""Text models: decoders, encoders, encoder-decoders and two-stream permutation models, on the
shared backbone."""
