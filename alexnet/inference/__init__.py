"""A trained network in use: loading it, and measuring its errors."""
