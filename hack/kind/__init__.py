"""A cluster of kind for the node tests, on machines with Docker."""
