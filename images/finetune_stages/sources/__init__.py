"""Input handling that the stage programs share: URIs, the hub, the cache, the work folder, and rows of JSON."""
