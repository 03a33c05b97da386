"""TrainJob in each release of Kubeflow Trainer: its pydantic models and its definitions."""
