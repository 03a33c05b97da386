"""The embedded default: object store, judge, and the runner of jobs on local processes."""
