"""Files: locks between processes, tensors on disk."""
