"""A durable object store with the semantics of the API server."""

from .database import StoreError
from .logs import LogFile
from .selector import Selector
from .store import Store

__all__ = ["LogFile", "Selector", "Store", "StoreError"]
