"""What the pipeline runs on: local stack, containers, units, job templates. It imports nothing else of ours."""
