"""Stage *dataset*: fetch chat rows, check every one, hold some out, and publish both parts as JSON Lines."""
