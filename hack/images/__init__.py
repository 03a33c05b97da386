"""The images of this project: build, measure, try and load into a node, with or without a registry."""
