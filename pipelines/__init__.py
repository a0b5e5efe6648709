"""One thin program a stage, the strict params reader, the bucket and the `alexnet` command."""
