"""oras, built from its Go module: it attaches the files of a release to the images in a registry."""
