"""A durable object store that behaves as the API server does."""

from .database import StoreError
from .logs import LogFile
from .selector import Selector
from .store import Store

__all__ = ["LogFile", "Selector", "Store", "StoreError"]
