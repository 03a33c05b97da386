"""The CA bundle of ``dataset.caRef``."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping

from finetune_contract import reasons
from finetune_contract.documents import DATASET_CA_VARIABLE
from finetune_stages.sdk import StageError
from finetune_stages.sdk.fault import first_line


def require_bundle(environment: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Return a TLS context that trusts the system's certificates, and those of the bundle if there is one.

    Raises:
        StageError: ``DatasetUntrusted``: the bundle has no certificate.
    """
    context = ssl.create_default_context()
    bundle = environment.get(DATASET_CA_VARIABLE)
    if bundle:
        try:
            context.load_verify_locations(bundle)
        except (OSError, ssl.SSLError) as error:
            raise StageError(
                reasons.DATASET_UNTRUSTED,
                f"dataset.caRef: {bundle} has no certificates in PEM format ({first_line(error).partition(' (_ssl')[0]}); correct the ConfigMap.",
            ) from error
    return context
