"""What stages *dataset* and *model* share: where things come from (URIs, the hub) and where they wait (cache, work folder)."""
