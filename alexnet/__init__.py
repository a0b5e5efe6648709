"""AlexNet as trained in 2012: the network, its training, images and shards. Knows no YAML, DVC, Prefect, S3 or environment."""
