"""Raw input to tokens and back: text, image patches, spectrograms, visual codes."""
