"""Sound in: whatever a person hands over, as one channel of float32 samples at the rate asked for.

`read.read_audio` gives all of it, `read.audio_blocks` the same samples piece by piece, so that
hours of it need no more memory than minutes. torchaudio is imported when a sound has another rate,
never before; nothing is imported here, since schemas live in this folder too.
"""
