"""The two ways a user's input can be wrong. Anything else that is raised is our own mistake."""


class ParamsError(ValueError):
    """A parameter is missing, unknown, of the wrong type or out of range. The message starts with its path."""


class DataError(ValueError):
    """Data is missing, damaged or not what its manifest says. The message names the file, shard or key."""
