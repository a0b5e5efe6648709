"""The commands of whoever uses a released model."""
