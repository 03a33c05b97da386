"""The cluster of the node tests with kind, where Docker is: the same tests, on nodes that somebody else makes."""
