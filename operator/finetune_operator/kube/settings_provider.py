"""Settings for the runs of each namespace: the operator's configuration, the namespace's defaults, and the Trainer schema."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from finetune_operator.api.kinds import CONFIGMAP
from finetune_operator.api.kubernetes_yaml import InvalidYAML, parse
from finetune_operator.core.settings import Settings, Trainer
from finetune_operator.loop.errors import NotFound

from .client import ApiServer
from .configuration import Configuration

DEFAULTS = "finetune-defaults"
"""The ConfigMap of a namespace with default values of ``spec``, as YAML in its key ``spec.yaml``."""
DEFAULTS_KEY = "spec.yaml"
_CACHE_SECONDS = 15.0


class SettingsProvider:
    """Source of the settings for each pass of a controller. The settings of a namespace are cached for 15 seconds."""

    def __init__(self, server: ApiServer, configuration: Configuration, clock: Callable[[], float] = time.monotonic) -> None:
        self._server, self._configuration, self._clock = server, configuration, clock
        self._cache: dict[str, tuple[float, Settings]] = {}
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
            defaults, problem = await self._defaults(namespace)
            cached = (self._clock(), self._configuration.settings(self.trainer, defaults, problem))
            self._cache[namespace] = cached
        return cached[1]

    async def _defaults(self, namespace: str) -> tuple[dict[str, Any], str | None]:
        try:
            configmap = await self._server.get(CONFIGMAP, namespace, DEFAULTS)
        except NotFound:
            return {}, None
        try:
            values = parse((configmap.get("data") or {}).get(DEFAULTS_KEY) or "{}")
        except InvalidYAML as error:
            return {}, f"ConfigMap {DEFAULTS}, key {DEFAULTS_KEY}: {error}."
        if values is None:  # comments only
            return {}, None
        if not isinstance(values, dict):
            return {}, f"ConfigMap {DEFAULTS}, key {DEFAULTS_KEY}: not a mapping; write the fields of a FineTuneRun's spec."
        return values, None
