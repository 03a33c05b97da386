"""Models from an S3 bucket: the objects directly below a prefix."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from finetune_contract.codec import digest
from finetune_contract.documents import Scalar
from finetune_contract.uris import S3Location
from finetune_stages.sdk import Context, StageError
from finetune_stages.sources.downloads import RemoteFile
from finetune_stages.sources.file_names import has_wildcards
from finetune_stages.sources.origin import MODEL
from finetune_stages.sources.progress import report_note
from finetune_stages.sources.s3 import Bucket, S3Access, S3Object, objects_fingerprint

from .check import Requirements
from .download import Listing, obtain_listed, ranges, remove_ranges
from .files import CHAT_TEMPLATES, belongs_to_model
from .obtain import Obtained

MOST_OBJECTS = 10_000
"""Largest number of objects directly below the prefix of a model."""


class S3Model:
    """The model below the prefix of a location, with or without its last ``/``."""

    def __init__(self, context: Context, location: S3Location, endpoint: str | None, region: str | None) -> None:
        """Look up the objects.

        Raises:
            StageError: ``ModelNotFound``, ``ModelForbidden``, ``ModelUnreachable``, ``ModelUntrusted``, ``S3CredentialsMissing``.
        """
        if has_wildcards(location.key):
            raise StageError(
                MODEL.not_found,
                f"{MODEL.field}: {location.shown} is a pattern, and a model is one directory; set s3://<bucket>/<prefix>/.",
            )
        key = location.key.rstrip("/")
        self._prefix = f"{key}/" if key else ""
        self.name = f"s3://{location.bucket}/{self._prefix}"
        self._bucket_name = location.bucket
        access = S3Access.of(location, MODEL, endpoint, region)
        self._server = access.endpoint or "AWS"
        report_note(context, f"looking up {self.name}")
        self._bucket = Bucket(location, access, MODEL)
        self._objects = {one.key.removeprefix(self._prefix): one for one in self._find()}
        if not self._objects:
            raise self._nothing_found(location)

    @property
    def fingerprint(self) -> dict[str, Scalar]:
        """Keys, sizes and ETags of the objects that can be a part of the model."""
        return objects_fingerprint([one for name, one in sorted(self._objects.items()) if belongs_to_model(name)])

    def obtain(self, context: Context, requirements: Requirements) -> Obtained:
        """Store the model in the cache, under its location and the ETags of its objects.

        Raises:
            StageError: see :func:`obtain_listed`.
        """

        def remote(name: str, target: Path) -> RemoteFile:
            return self._bucket.remote(self._objects[name], target)

        sizes = {name: one.size for name, one in self._objects.items()}
        key = digest(["s3", self._server, self._bucket_name, self._prefix, self.fingerprint["objects"]])
        note = {"source": self.name, **self.fingerprint}
        return obtain_listed(
            context,
            Listing(self.name, self._server, key, sizes, note, self.fingerprint, ranges(remote, self.name), remove_ranges),
            requirements,
        )

    def _find(self) -> list[S3Object]:
        found: list[S3Object] = []
        for prefix in (self._prefix, f"{self._prefix}{CHAT_TEMPLATES}/"):
            found += islice(self._bucket.children(prefix), MOST_OBJECTS + 1)
        if len(found) > MOST_OBJECTS:
            raise StageError(
                MODEL.not_found,
                f"{MODEL.field}: {self.name} has more than {MOST_OBJECTS:,} objects; set the prefix of one model.",
            )
        return found

    def _nothing_found(self, location: S3Location) -> StageError:
        if any(one.key == location.key for one in self._bucket.children(location.key)):
            words = f"{location.shown} is one object, and a model is several; set the prefix of all its objects"
        else:
            words = f"{self.name} has no objects; correct the prefix"
        return StageError(MODEL.not_found, f"{MODEL.field}: {words}.")
