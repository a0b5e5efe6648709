"""Training: the schedule, the update rule, the loop and its checkpoints."""
