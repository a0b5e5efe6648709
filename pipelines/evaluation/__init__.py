"""What the evaluate stage is made of: batches, baselines, plots."""
