"""Local mode: an embedded object store, and a runner of Jobs and TrainJobs as local processes."""
