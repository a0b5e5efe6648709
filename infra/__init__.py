"""What the pipeline runs on: environment, local store, scheduler, containers. It imports no other package of ours."""
