"""The Prefect flow: it runs `dvc repro` stage by stage, and imports none of the other packages."""
