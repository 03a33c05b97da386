"""The FineTuneRun operator: one custom resource from a chat data set to a registered model."""

__version__ = "0.1.0"
"""The release. Everything else that names it is generated or built from this line: see CONTRIBUTING.md."""
