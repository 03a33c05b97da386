"""The one error of this package."""


class CannotBuildError(RuntimeError):
    """Something that building, loading or trying an image needs is not there, or failed. The message says what, and what to do."""
