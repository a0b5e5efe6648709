"""params.yaml and presets, read strictly."""
