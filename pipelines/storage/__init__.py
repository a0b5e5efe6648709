"""The bucket, and the shards in it."""
