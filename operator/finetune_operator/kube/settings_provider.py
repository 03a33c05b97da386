"""Settings for the runs of each namespace: the operator's configuration, the namespace's defaults, and the Trainer schema."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from finetune_operator.api.kinds import CONFIGMAP
from finetune_operator.core.settings import Settings, Trainer
from finetune_operator.loop.errors import NotFound
from finetune_operator.validation import DEFAULTS, NamespaceDefaults, defaults_of

from .client import ApiServer
from .configuration import Configuration

_CACHE_SECONDS = 15.0


class SettingsProvider:
    """Source of the settings for each pass of a controller.

    The settings of a namespace are cached for 15 seconds, and what its ConfigMap means until the ConfigMap changes.
    """

    def __init__(self, server: ApiServer, configuration: Configuration, clock: Callable[[], float] = time.monotonic) -> None:
        self._server, self._configuration, self._clock = server, configuration, clock
        self._cache: dict[str, tuple[float, Settings]] = {}
        self._read: dict[str, tuple[tuple[str, str], NamespaceDefaults]] = {}
        """The defaults of each namespace, with the uid and the resourceVersion of their ConfigMap."""
        self.trainer: Trainer | None = None

    def set_trainer(self, trainer: Trainer | None) -> None:
        """Set the installed Trainer, if any."""
        self.trainer = trainer
        self._cache.clear()

    async def settings(self, namespace: str) -> Settings:
        """Return the settings for the runs of ``namespace``.

        Raises:
            ApiError: its defaults cannot be read.
        """
        cached = self._cache.get(namespace)
        if cached is None or self._clock() - cached[0] > _CACHE_SECONDS:
            defaults = await self._defaults(namespace)
            cached = (self._clock(), self._configuration.settings(self.trainer, defaults.values, defaults.problem))
            self._cache[namespace] = cached
        return cached[1]

    async def _defaults(self, namespace: str) -> NamespaceDefaults:
        try:
            configmap = await self._server.get(CONFIGMAP, namespace, DEFAULTS)
        except NotFound:
            self._read.pop(namespace, None)
            return NamespaceDefaults()
        metadata = configmap["metadata"]
        version = metadata["uid"], metadata["resourceVersion"]
        known = self._read.get(namespace)
        if known is None or known[0] != version:
            # In a thread, because reading takes tens of milliseconds at the limits of its size.
            known = self._read[namespace] = version, await asyncio.to_thread(defaults_of, configmap, "cluster")
        return known[1]
