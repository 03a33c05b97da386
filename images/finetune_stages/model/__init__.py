"""Stage *model*: store the checked base model in the volume's cache and link it into the run's folder."""
