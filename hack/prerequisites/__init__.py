"""Everything that tests run on and that is built once: tests find it, and never build it."""
