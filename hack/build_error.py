"""The error of everything that builds: programs of Go modules, and images."""


class CannotBuildError(RuntimeError):
    """Something that a build, or the use of what it makes, needs is not there or failed. The message says what, and what to do."""
