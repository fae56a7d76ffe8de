"""One file per scheme: reading its vocabulary files, what is done to the text first, training."""
