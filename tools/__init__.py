"""What keeps the project honest: benchmarks, and the writers of cards and counts."""
