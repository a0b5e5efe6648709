"""The errors that a user can cause, and cure. Anything else that is raised is a defect of the program.

    Exception
    ├── ParamsError          a parameter is missing, unknown, of the wrong type or out of range
    └── DataError            data is missing, damaged, or not what its manifest says
        ├── Busy             another process holds a lock (alexnet.files.locks)
        ├── Mismatch         bytes of a shard that are not what its manifest says (alexnet.shards.verify)
        ├── Diverged         the loss or a weight is no longer finite (alexnet.training.loop)
        └── ...              those of the stages: pipelines.runtime.errors

None of them is a ValueError or an OSError: code that handles a malformed value must not handle an outage by accident.
`distributed.errors.Lost` is a RuntimeError, because torch reports a lost process as one.
"""


class ParamsError(Exception):
    """A parameter is missing, unknown, of the wrong type or out of range. The message starts with its path."""


class DataError(Exception):
    """Data is missing, damaged or not what its manifest says. The message names the file, shard or key."""
