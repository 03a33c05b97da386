"""A release: built from a commit into one folder, and checked there without a network."""
