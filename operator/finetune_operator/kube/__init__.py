"""Effects on a real API server."""
