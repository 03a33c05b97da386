"""Environments with the libraries of training images: one for each set of versions."""
