"""Prerequisites of tests, which are built once. Tests use them and build nothing."""
