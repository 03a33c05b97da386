"""The control loop around the pure core: the Kubernetes protocol, typed errors, queue, observe, apply, resync."""
