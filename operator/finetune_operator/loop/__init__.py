"""The control loop around the pure core: protocol, typed errors, queue, watches, caches, observe, apply and resync."""
