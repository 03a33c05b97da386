"""Stage *dataset*: fetch chat rows, check every row, hold some out, and publish both parts as JSON Lines."""
