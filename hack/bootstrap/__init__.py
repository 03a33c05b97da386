"""The environment ``.venv`` of this checkout. Standard library only: it runs before anything is installed."""
