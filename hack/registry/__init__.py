"""An OCI registry, distribution, built from its Go module. Tests push images to it and download from it."""
