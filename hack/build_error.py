"""The error of all builds: of programs from Go modules, of images, of releases."""


class CannotBuildError(RuntimeError):
    """A requirement is missing, or a step failed. The message names it, and what to do."""
