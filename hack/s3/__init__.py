"""An S3 server, versitygw, built from its Go module. Tests download from it."""
