"""Revalidation of data sources before a later run reuses prepared data.

The digest of the inputs covers the URI of the data, not its content. Files are read again; ETags of an S3 server and of a web server are
compared; the hub returns the commit that the revision refers to. A revision that is a commit never changes.
"""

from __future__ import annotations

from collections.abc import Mapping

from finetune_contract.documents import DatasetInputs, Scalar
from finetune_contract.uris import HubId, ImageReference, S3Location, WebAddress
from finetune_stages.sdk import Context
from finetune_stages.sources.hub import COMMIT, find_repository, hub_cache, keep_caches_in
from finetune_stages.sources.progress import ProgressCounter
from finetune_stages.sources.uri import parse_uri

from .local_files import LocalLocation
from .source_file import SourceFile, content_digest
from .source_request import SourceRequest, source_requests

PREPARATION = 6
"""Version of the processing of rows. A new version invalidates data that an older one prepared."""
PREPARATION_KEY = "preparation"

DATASETS = "datasets"
"""Name of the published directory in the run's folder."""
NAMES = ("uri", "evalUri")
"""Prefixes of the two sources' keys in the fingerprint."""


def revalidate(context: Context, fingerprint: Mapping[str, Scalar]) -> bool:
    """Return whether all sources are what was noted of them.

    Raises:
        StageError: A source is unreachable or no longer exists.
    """
    if fingerprint.get(PREPARATION_KEY) != PREPARATION:
        return False
    sources = zip(source_requests(context.inputs(DatasetInputs)), NAMES, strict=False)
    return all(
        _same(
            request,
            {key.removeprefix(f"{name}."): value for key, value in fingerprint.items() if key.startswith(f"{name}.")},
            context,
        )
        for request, name in sources
    )


def _same(request: SourceRequest, fingerprint: Mapping[str, Scalar], context: Context) -> bool:
    source_uri = parse_uri(request.uri, request.origin)
    if isinstance(source_uri, HubId):
        if request.revision and COMMIT.fullmatch(request.revision):
            return fingerprint.get("commit") == request.revision
        keep_caches_in(hub_cache(context))
        return fingerprint.get("commit") == find_repository(request.origin, source_uri.id, request.revision, context).commit
    if isinstance(source_uri, S3Location):
        from finetune_stages.sources.s3 import Bucket, S3Access, objects_fingerprint

        from .s3_files import find_objects

        access = S3Access.of(source_uri, request.origin, request.endpoint, request.region)
        return dict(fingerprint) == objects_fingerprint(
            find_objects(Bucket(source_uri, access, request.origin), source_uri, request.origin)[0]
        )
    if isinstance(source_uri, WebAddress):
        from .web import is_unchanged

        return is_unchanged(source_uri, fingerprint, request.origin)
    assert not isinstance(source_uri, ImageReference)  # no URI of a dataset is an image
    location = LocalLocation.of(source_uri, request.origin)
    counter = ProgressCounter(context, f"reading {location.name}", high=0)
    files = [SourceFile.read(file.path, file.name, counter) for file in location.find(request.origin)[0]]
    return fingerprint.get("sha256") == content_digest(files)
