"""The training loop on plain torch: objectives, schedules, checkpoints, loggers."""
