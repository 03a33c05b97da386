"""The FineTuneRun operator: one custom resource from a chat data set to a registered model."""

__version__ = "0.1.0"
