"""Objects in S3 buckets: lookup by key, prefix or glob, and downloads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from finetune_contract import reasons
from finetune_contract.codec import digest
from finetune_contract.documents import SOURCE_CA_VARIABLE, Scalar
from finetune_contract.hosts import AWS
from finetune_contract.uris import S3_ENDPOINT_KEYS, S3Location
from finetune_stages.sdk import StageError
from finetune_stages.sdk.hosts import require_allowed

from .downloads import CHUNK, CONNECTIONS, Dropped, RemoteFile
from .file_names import fixed_prefix
from .origin import Origin
from .s3_faults import Subject, s3_errors, s3_fault
from .trust import require_bundle

ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
_POD_IDENTITIES = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
"""Variables that a platform sets in a pod that has an identity of its own (IRSA, EKS Pod Identity, ECS)."""
_NO_METADATA = "AWS_EC2_METADATA_DISABLED"
"""Only ``false`` allows the credentials of the node, which all pods of the node share."""
_SERVER = re.compile(r"https?://[^/\s]+.*", re.IGNORECASE)
_MOST_LISTED = 100_000
"""Largest number of objects below a prefix with data."""
_CONNECT_SECONDS, _READ_SECONDS, _ATTEMPTS = 10, 60, 3


@dataclass(frozen=True)
class S3Object:
    """An object of a bucket at one version.

    Attributes:
        size: in bytes.
        version: of a bucket with versions; ``None`` in a listing.
    """

    key: str
    size: int
    etag: str
    version: str | None = None


@dataclass(frozen=True)
class S3Access:
    """Where the server is, and the credentials for it.

    Attributes:
        endpoint: URL of a server other than AWS.
        bundle: path of the CA bundle.
        keys: access key, secret key and session token; ``None`` if the platform gives the pod credentials.
    """

    endpoint: str | None
    region: str | None
    bundle: str | None
    keys: tuple[str, str, str | None] | None

    @classmethod
    def of(
        cls,
        location: S3Location,
        origin: Origin,
        endpoint: str | None,
        region: str | None,
        environment: Mapping[str, str] = os.environ,
    ) -> S3Access:
        """Return the access from the fields of the run and the stage's environment.

        Raises:
            StageError: ``S3CredentialsMissing``, ``origin.untrusted``; ``origin.not_found``: the endpoint is not a URL.
        """

        def variable(*names: str) -> str | None:
            return next(filter(None, (environment.get(name, "").strip() for name in names)), None)

        require_bundle(origin, environment)
        name = next((name for name in S3_ENDPOINT_KEYS if variable(name)), S3_ENDPOINT_KEYS[0])
        server = endpoint or variable(name)
        if server and not _SERVER.fullmatch(server):
            where = f"{origin.repo_type}.endpoint" if endpoint else f"{name} in {origin.secret}"
            raise StageError(
                origin.not_found,
                f"{origin.field}: {location.shown}: the endpoint {server[:80]!r} is not the address of a server; write https://<host> into {where}.",
            )
        require_allowed(server or AWS, "objectStores", f"{origin.repo_type}.endpoint", environment)
        return cls(
            server,
            region or variable("AWS_DEFAULT_REGION", "AWS_REGION"),
            variable(SOURCE_CA_VARIABLE, "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"),
            _keys(
                (variable(ACCESS_KEY), variable(SECRET_KEY), variable(SESSION_TOKEN)),
                environment,
                origin,
                f"{origin.field}: {location.shown}",
            ),
        )


class Bucket:
    """A client for the bucket of one location."""

    def __init__(self, location: S3Location, access: S3Access, origin: Origin) -> None:
        self._location = location
        self._origin = origin
        self._subject = Subject(origin, location.shown, location.bucket, access.endpoint or "AWS")
        with s3_errors(self._subject):
            self._client = _client(access)

    def single(self) -> S3Object:
        """Return the object at the key of the location.

        Raises:
            StageError: one of the reasons of the origin.
        """
        with s3_errors(self._subject):
            return self._head(self._location.key)

    def below(self) -> list[S3Object]:
        """Return the objects whose keys begin with the key of the location, by key.

        Raises:
            StageError: one of the reasons of the origin.
        """
        with s3_errors(self._subject):
            return self._few(self._listed(self._location.key))

    def children(self, prefix: str) -> Iterator[S3Object]:
        """Yield the objects directly below ``prefix``, which is empty or ends with ``/``, by key.

        Raises:
            StageError: one of the reasons of the origin.
        """
        with s3_errors(self._subject):
            yield from self._listed(prefix, Delimiter="/")

    def remote(self, found: S3Object, target: Path) -> RemoteFile:
        """Return an object as a file to download."""
        identity = digest([self._subject.server, self._location.bucket, found.key, found.etag, found.version])
        return RemoteFile(found.size, identity, target, lambda first, end: self._read(found, first, end))

    def _read(self, found: S3Object, first: int, end: int) -> Iterator[bytes]:
        subject = Subject(self._origin, f"s3://{self._location.bucket}/{found.key}", self._subject.bucket, self._subject.server)
        version = {"VersionId": found.version} if found.version else {}
        try:
            # Every range has the condition: two ranges never come from two contents.
            response = self._client.get_object(
                Bucket=self._location.bucket, Key=found.key, Range=f"bytes={first}-{end - 1}", IfMatch=found.etag, **version
            )
            with response["Body"] as body:
                while chunk := body.read(CHUNK):
                    yield chunk
        except Exception as error:
            fault = s3_fault(error, subject)
            if fault is None:
                raise
            if fault.reason is self._origin.unreachable:
                raise Dropped(fault) from error
            raise fault from error

    def matching(self) -> list[S3Object]:
        """Return the objects that match the glob of the location, by key.

        Raises:
            StageError: one of the reasons of the origin; ``origin.not_found``: no object matches.
        """
        from fsspec.utils import glob_translate

        pattern = self._location.key
        matches = re.compile(glob_translate(pattern))
        with s3_errors(self._subject):
            candidates = self._few(self._listed(fixed_prefix(pattern)))
        found = [one for one in candidates if one.key == pattern or matches.match(one.key)]
        if not found:
            raise StageError(
                self._origin.not_found,
                f"{self._subject.start}: no object matches; correct the pattern (* matches no /, ** does).",
            )
        return found

    def _few(self, listed: Iterator[S3Object]) -> list[S3Object]:
        """Return the objects of a listing, which a server could continue without an end."""
        found = list(islice(listed, _MOST_LISTED + 1))
        if len(found) > _MOST_LISTED:
            raise StageError(
                self._origin.not_found,
                f"{self._subject.start}: there are more than {_MOST_LISTED:,} objects; set a longer prefix, or fewer and larger files.",
            )
        return found

    def _listed(self, prefix: str, **options: str) -> Iterator[S3Object]:
        """Yield the objects whose keys begin with ``prefix``, by key, without the empty ones that consoles create as folders."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._location.bucket, Prefix=prefix, **options)
        for page in pages:
            for one in page.get("Contents", ()):
                if not one["Key"].endswith("/"):
                    yield S3Object(one["Key"], one["Size"], one["ETag"])

    def _head(self, key: str) -> S3Object:
        from botocore.exceptions import ClientError

        try:
            head = self._client.head_object(Bucket=self._location.bucket, Key=key)
            size = head["ContentLength"]
        except ClientError as error:  # a response to HEAD has no body, and so no reason
            self._require_object(key, error)
            head = self._client.get_object(Bucket=self._location.bucket, Key=key, Range="bytes=0-0")
            head["Body"].close()
            size = int(head["ContentRange"].rpartition("/")[2])
        version = head.get("VersionId")
        return S3Object(key, size, head["ETag"], None if version == "null" else version)

    def _require_object(self, key: str, error: Any) -> None:
        if error.response.get("Error", {}).get("Code") == "404" and self._has_objects_below(key):
            raise StageError(
                self._origin.not_found,
                f"{self._subject.start}: there is no such object, but there are objects below it; write {self._subject.name}/ to read"
                " them.",
            )

    def _has_objects_below(self, key: str) -> bool:
        from botocore.exceptions import ClientError

        try:
            listing = self._client.list_objects_v2(Bucket=self._location.bucket, Prefix=f"{key}/", MaxKeys=1)
        except ClientError:  # the owner of the keys may not list the bucket, or it does not exist
            return False
        return bool(listing.get("Contents"))


def objects_fingerprint(objects: Sequence[S3Object]) -> dict[str, Scalar]:
    """Return the fingerprint of objects: a change of any of them, and an added or removed one, changes it."""
    return {"objects": digest([[one.key, one.size, one.etag, one.version] for one in objects])}


def _keys(
    found: tuple[str | None, str | None, str | None], environment: Mapping[str, str], origin: Origin, start: str
) -> tuple[str, str, str | None] | None:
    """Return the keys, or ``None`` if the platform gives the pod an identity.

    Raises:
        StageError: ``S3CredentialsMissing``.
    """
    access, secret, token = found
    if access and secret:
        return access, secret, token
    if access or secret:
        there, missing = (ACCESS_KEY, SECRET_KEY) if access else (SECRET_KEY, ACCESS_KEY)
        raise StageError(
            reasons.S3_CREDENTIALS_MISSING, f"{start}: {there} is set without {missing}; set both in {origin.secret}."
        )
    if any(environment.get(name) for name in _POD_IDENTITIES) or environment.get(_NO_METADATA, "").lower() == "false":
        return None
    raise StageError(
        reasons.S3_CREDENTIALS_MISSING,
        f"{start}: needs an access key, and there is none; set {ACCESS_KEY} and {SECRET_KEY} in {origin.secret}.",
    )


def _client(access: S3Access) -> Any:
    import boto3
    import botocore.session
    from botocore.config import Config

    # Files in the home directory are never read: the credentials are those of the run or of its pod.
    session = botocore.session.Session(session_vars={"profile": (None, None, None, None)})
    session.set_config_variable("config_file", os.devnull)
    session.set_config_variable("credentials_file", os.devnull)
    if access.keys:
        session.set_credentials(*access.keys)
    config = Config(
        signature_version="s3v4", connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS, max_pool_connections=CONNECTIONS,
        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"}, response_checksum_validation="when_required",
        request_checksum_calculation="when_required", s3={"addressing_style": "path" if access.endpoint else "auto"},
    )  # fmt: skip
    return boto3.Session(botocore_session=session).client(
        "s3", region_name=access.region or "us-east-1", endpoint_url=access.endpoint, verify=access.bundle, config=config
    )
