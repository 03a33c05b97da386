"""The images of this project: built, measured, tried and handed to a node, with or without a registry."""
