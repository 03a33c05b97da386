"""Everything that is decided, as pure functions: no I/O, no clock, no randomness, no logging. Imports the API only."""
