"""WebDataset tars: the manifest that lists them, and verified copies on this machine."""
