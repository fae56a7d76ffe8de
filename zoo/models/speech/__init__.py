"""Speech recognisers that read a whole utterance: an encoder with a CTC head or a transducer."""
