"""Access to the package index during a build: the settings of this machine's pip, as build secrets.

An engine gives a secret to the step that mounts it, and writes it into no layer. So mirrors, their passwords, proxies and a
company's certificate authorities are not in images.
"""

from __future__ import annotations

import ast
import configparser
import os
import subprocess
import sys
from pathlib import Path

CONFIGURATION, AUTHORITIES = "pip.conf", "ca.pem"
_AUTHORITIES_INSIDE = "/etc/finetune-ca.pem"
_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def secrets(folder: Path) -> dict[str, Path]:
    """Write the secrets of a build into ``folder``, and return their paths by id. The caller removes the folder."""
    settings = _pip_settings()
    found: dict[str, Path] = {}
    bundle = next(
        (path for path in (settings.get("cert"), *map(os.environ.get, _BUNDLES)) if path and Path(path).is_file()), None
    )
    wanted = {name: settings[name] for name in _SETTINGS if name in settings}
    if bundle:
        found[AUTHORITIES] = Path(bundle)
        wanted["cert"] = _AUTHORITIES_INSIDE
    if wanted:
        configuration = configparser.RawConfigParser()
        configuration["global"] = wanted
        found[CONFIGURATION] = folder / CONFIGURATION
        with os.fdopen(os.open(found[CONFIGURATION], os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            configuration.write(file)
    return found


def _pip_settings() -> dict[str, str]:
    """Return the settings of ``pip config list`` by name. Later files outrank earlier ones, and variables outrank files."""
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    found: dict[str, dict[str, str]] = {prefix: {} for prefix in ("global", "install", ":env:")}
    for line in done.stdout.splitlines():
        name, equals, value = line.partition("=")
        section, _, setting = name.rpartition(".")
        if equals and section in found:
            found[section][setting] = str(ast.literal_eval(value))
    return {setting: value for section in found.values() for setting, value in section.items()}
