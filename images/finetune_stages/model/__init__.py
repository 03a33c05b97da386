"""Stage *model*: the base model into the volume's cache, whole and checked, and a link to it into the run's folder."""
