"""Stage *registration*: the model's name, version and lineage into MLflow's store in the workspace."""
