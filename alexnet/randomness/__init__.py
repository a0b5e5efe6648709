"""Random numbers as functions of a key: no state to save, the same on any number of workers."""
