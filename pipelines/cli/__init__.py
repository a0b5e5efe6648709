"""The `alexnet` command, and the programs beside it."""
