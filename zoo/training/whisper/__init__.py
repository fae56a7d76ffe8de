"""Training of Whisper: text and times as tokens that follow sound."""
