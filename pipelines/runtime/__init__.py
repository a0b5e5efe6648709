"""What every stage program stands on: console, environment variables, executors, launching of ranks."""
