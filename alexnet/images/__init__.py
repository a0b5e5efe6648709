"""Image files: their faults, their form in a shard, and the pixel statistics of many."""
