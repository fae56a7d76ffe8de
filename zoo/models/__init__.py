"""What a name builds: tokenizers + backbone + heads + the verbs of its task."""
