"""When the pipeline runs: Prefect starts `dvc`, stage by stage. It imports none of the other packages."""
