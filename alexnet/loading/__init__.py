"""Shards to batches on the device: order, decoding, augmentation."""
