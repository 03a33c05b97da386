"""What the place is like for the runs of each namespace: the operator's configuration, the namespace's, and Trainer's shape."""

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
"""The ConfigMap of a namespace with values in the shape of ``spec``, as YAML in its key ``spec.yaml``."""
DEFAULTS_KEY = "spec.yaml"
_KEPT_SECONDS = 15.0


class SettingsProvider:
    """Answers what :class:`~finetune_operator.loop.controller.Controller` asks before each pass. Remembers a namespace for a moment."""

    def __init__(self, server: ApiServer, configuration: Configuration, clock: Callable[[], float] = time.monotonic) -> None:
        self._server, self._configuration, self._clock = server, configuration, clock
        self._known: dict[str, tuple[float, Settings]] = {}
        self.trainer: Trainer | None = None

    def learn(self, trainer: Trainer | None) -> None:
        """Another Trainer is there now, or none."""
        self.trainer = trainer
        self._known.clear()

    async def settings(self, namespace: str) -> Settings:
        """The settings for the runs of ``namespace``.

        Raises:
            ApiError: its defaults could not be read.
        """
        known = self._known.get(namespace)
        if known is None or self._clock() - known[0] > _KEPT_SECONDS:
            defaults, problem = await self._defaults(namespace)
            known = (self._clock(), self._configuration.settings(self.trainer, defaults, problem))
            self._known[namespace] = known
        return known[1]

    async def _defaults(self, namespace: str) -> tuple[dict[str, Any], str | None]:
        try:
            found = await self._server.get(CONFIGMAP, namespace, DEFAULTS)
        except NotFound:
            return {}, None
        try:
            values = parse((found.get("data") or {}).get(DEFAULTS_KEY) or "{}")
        except InvalidYAML as error:
            return {}, f"ConfigMap {DEFAULTS}, key {DEFAULTS_KEY}: {error}."
        if values is None:  # comments only
            return {}, None
        if not isinstance(values, dict):
            return {}, f"ConfigMap {DEFAULTS}, key {DEFAULTS_KEY}: expected the fields of a FineTuneRun's spec."
        return values, None
