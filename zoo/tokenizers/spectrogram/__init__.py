"""Speech as tokens: filterbank features of a waveform, and the convolutions that thin them out."""
