"""Program and work of stage *model*, from the URI to the link in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from finetune_contract import reasons
from finetune_contract.documents import ModelInputs, Scalar
from finetune_contract.result import ModelOutputs, Result
from finetune_contract.uris import ClaimPath, HubId, ImageReference, S3Location
from finetune_stages.sdk import Context, Finished, Reuse, StageError, run_stage, verify_seal
from finetune_stages.sources.cache_limit import limit_caches
from finetune_stages.sources.hub import hub_cache, keep_caches_in
from finetune_stages.sources.origin import MODEL
from finetune_stages.sources.uri import parse_uri

from . import hub, local
from .check import Requirements, check_settings, check_weights
from .obtain import Obtained

BASE_MODEL = "base_model"
"""Name of the link in the run's folder."""


def main() -> int:
    """Run the stage and return its exit code."""
    return run_stage(
        ("model",), work, outputs_exist, reuse=Reuse(directories=(BASE_MODEL,), revalidate=revalidate), after=limit_caches
    )


def outputs_exist(context: Context, result: Result) -> bool:
    """Return whether the model of an earlier result is still linked into the run's folder. Only names and sizes are compared."""
    seal = verify_seal(context.path(context.layout.base_model), content=False)
    return seal is not None and seal.digest == result.outputs.get("digest")


def revalidate(context: Context, fingerprint: Mapping[str, Scalar]) -> bool:
    """Return whether the model still has this fingerprint: the hub's commit, the digest of an image, the ETags of objects, or the digest of a directory's files.

    Raises:
        StageError: The model no longer exists.
    """
    inputs = context.inputs(ModelInputs)
    source = parse_uri(inputs.uri, MODEL)
    if isinstance(source, HubId):
        keep_caches_in(hub_cache(context))
        return hub.is_unchanged(context, source, inputs.revision, fingerprint.get("commit"))
    if isinstance(source, ImageReference):
        from . import image  # TLS takes longer to import than a model of another location to reuse

        return image.is_unchanged(context, source, fingerprint.get("digest"))
    if isinstance(source, S3Location):
        from .s3 import S3Model

        return S3Model(context, source, inputs.endpoint, inputs.region).fingerprint == dict(fingerprint)
    assert isinstance(source, Path | ClaimPath)  # no URI of a model is a web address
    return local.is_unchanged(context, local.Directory.of(source, MODEL), fingerprint.get("files"))


def work(context: Context) -> Finished:
    """Store the model in the cache, unless it is there, and link it into the run's folder.

    Raises:
        StageError: with any of the reasons of the model (``ModelNotFound`` to ``ChatTemplateInvalid``), ``WorkspaceFull``,
            ``BadDocument``, ``Superseded``.
    """
    inputs = context.inputs(ModelInputs)
    keep_caches_in(hub_cache(context))
    obtained = _obtain(context, inputs)
    # A cache entry was checked when it was stored, but that run may have trusted its code.
    settings = check_settings(obtained.entry, obtained.name, Requirements.of(inputs))
    weights = check_weights(obtained.entry, obtained.name)
    context.publish_link(obtained.entry, context.layout.base_model)
    size = sum(file.size for file in obtained.seal.files.values())
    return Finished(
        ModelOutputs(
            obtained.seal.digest, weights.parameters, size, settings.architecture, obtained.revision, settings.positions
        ),
        {"parameters": float(weights.parameters), "bytes": float(size)},
        message=f"{settings.architecture}, {weights.parameters:,} parameters, {size / 10**6:,.1f} MB, from {obtained.name}",
        warnings=(*settings.warnings, *weights.warnings),
        reused=obtained.reused,
        fingerprint=dict(obtained.fingerprint) or {"files": obtained.seal.digest},
        cached={BASE_MODEL: str(obtained.entry.relative_to(context.workspace))},
    )


def _obtain(context: Context, inputs: ModelInputs) -> Obtained:
    source, requirements = parse_uri(inputs.uri, MODEL), Requirements.of(inputs)
    if isinstance(source, HubId):
        return hub.obtain(context, source, inputs.revision, requirements)
    if isinstance(source, ImageReference):
        from . import image

        return image.obtain(context, source, requirements)
    if isinstance(source, S3Location):
        from .s3 import S3Model

        return S3Model(context, source, inputs.endpoint, inputs.region).obtain(context, requirements)
    assert isinstance(source, Path | ClaimPath)  # no URI of a model is a web address
    directory = local.Directory.of(source, MODEL)
    if inputs.revision:
        raise StageError(
            reasons.BAD_DOCUMENT,
            f"model.revision: only models of the hub have revisions, and {directory.name} is a directory; remove it.",
        )
    return local.obtain(context, directory, requirements)
