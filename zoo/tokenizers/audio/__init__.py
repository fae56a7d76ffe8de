"""Sound in: whatever a person hands over, as one channel of float32 samples at the rate asked for.

`read_audio` gives all of it, `audio_blocks` the same samples piece by piece, so that hours of it
need no more memory than minutes. torchaudio is imported when a sound has another rate, never
before.
"""

from zoo.tokenizers.audio.read import RATE, as_list, audio_blocks, read_audio

__all__ = ["RATE", "as_list", "audio_blocks", "read_audio"]
