"""The control loop on a Kubernetes API server, and the process of the operator."""
