"""What Kubeflow Trainer itself says of a TrainJob, release by release: its pydantic models, and its definitions."""
