"""The CA bundle of ``dataset.caRef`` and ``model.caRef``."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping

from finetune_contract.documents import SOURCE_CA_VARIABLE
from finetune_stages.sdk import StageError
from finetune_stages.sdk.fault import first_line

from .origin import Origin


def require_bundle(origin: Origin, environment: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Return a TLS context that trusts the system's certificates, and those of the bundle if there is one.

    Raises:
        StageError: ``origin.untrusted``: the bundle has no certificate.
    """
    context = ssl.create_default_context()
    bundle = environment.get(SOURCE_CA_VARIABLE)
    if bundle:
        try:
            context.load_verify_locations(bundle)
        except (OSError, ssl.SSLError) as error:
            raise StageError(
                origin.untrusted,
                f"{origin.repo_type}.caRef: {bundle} has no certificates in PEM format ({first_line(error).partition(' (_ssl')[0]}); correct the ConfigMap.",
            ) from error
    return context
