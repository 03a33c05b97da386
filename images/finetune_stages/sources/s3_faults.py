"""Stage errors for the errors of an S3 server and of boto3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sdk.fault import AddressNotAllowed, causes, first_line

from .origin import Origin

_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired")
_REGION = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301")
_BUSY = ("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling", "ThrottlingException", "429")
_NO_TLS = ("WRONG_VERSION_NUMBER", "wrong version number", "HTTP_REQUEST")
"""Errors of OpenSSL for a response that is not TLS."""


@dataclass(frozen=True)
class Subject:
    """What a request is about, for messages.

    Attributes:
        name: the location as the user writes it.
        server: the endpoint.
    """

    origin: Origin
    name: str
    bucket: str
    server: str

    @property
    def start(self) -> str:
        """The beginning of each message."""
        return f"{self.origin.field}: {self.name}"


@contextmanager
def s3_errors(subject: Subject) -> Iterator[None]:
    """Raise errors of boto3 inside as :class:`StageError`. Other exceptions propagate."""
    try:
        yield
    except StageError:
        raise
    except Exception as error:
        fault = s3_fault(error, subject)
        if fault is None:
            raise
        raise fault from error


def s3_fault(error: BaseException, subject: Subject) -> StageError | None:
    """Return the stage error for an exception of boto3 or of its HTTP library; ``None`` for any other."""
    from botocore import exceptions
    from urllib3.exceptions import HTTPError

    origin, start = subject.origin, subject.start
    refused = next((link for link in causes(error) if isinstance(link, AddressNotAllowed)), None)
    if refused:
        return refused.of(start)
    if isinstance(error, exceptions.ClientError):
        return _response_fault(error, subject)
    if any(text in str(link) for link in causes(error) for text in _NO_TLS):
        return StageError(origin.not_found, f"{start}: {subject.server} does not use TLS; write http:// in the endpoint.")
    if any("certificate verify failed" in str(link) for link in causes(error)):
        return StageError(
            origin.untrusted,
            f"{start}: the certificate of {subject.server} is not trusted ({_tls_detail(error)}); set its CA in {origin.repo_type}.caRef.",
        )
    if isinstance(error, (exceptions.NoCredentialsError, exceptions.PartialCredentialsError)):
        return StageError(
            reasons.S3_CREDENTIALS_MISSING,
            f"{start}: the platform gives the pod no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in {origin.secret}.",
        )
    if isinstance(error, exceptions.InvalidRegionError):
        return StageError(
            origin.not_found,
            f"{start}: the region is not valid ({_reason(error)}); correct {origin.repo_type}.region, or AWS_DEFAULT_REGION in {origin.secret}.",
        )
    if isinstance(error, exceptions.ParamValidationError):
        return StageError(origin.not_found, f"{start}: is not a valid location ({_reason(error)}); correct it.")
    if isinstance(error, (exceptions.HTTPClientError, exceptions.BotoCoreError, HTTPError, ConnectionError, TimeoutError)):
        return StageError(
            origin.unreachable, f"{start}: {subject.server} is unreachable or sent an invalid response ({_reason(error)})."
        )
    return None


def _response_fault(error: Any, subject: Subject) -> StageError:
    """Return the stage error for an error that the server reports (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html)."""
    origin, start = subject.origin, subject.start
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "NoSuchBucket":
        return StageError(
            origin.not_found,
            f"{start}: {subject.server} has no bucket {subject.bucket}; correct {origin.field}, or set {origin.repo_type}.endpoint to the server"
            " that has it.",
        )
    if code in ("NoSuchKey", "NoSuchVersion", "404"):
        return StageError(origin.not_found, f"{start}: there is no such object; correct the key.")
    if code in _REGION:
        return StageError(origin.not_found, f"{start}: {_region_problem(error, subject)}.")
    if code in ("PreconditionFailed", "412"):
        return StageError(origin.changed, f"{start}: changed while it was downloaded; rerun when no process writes to it.")
    if code in _BUSY or status >= 500:
        return StageError(origin.unreachable, f"{start}: {subject.server} responded with {code} (status {status}).")
    denial = _denial(code, subject)
    if denial or status in (401, 403):
        words = denial or f"{subject.server} denies access ({code}); allow the owner of the keys to read it"
        return StageError(origin.forbidden, f"{start}: {words}.")
    return StageError(
        origin.not_found, f"{start}: {subject.server} rejected the request with {code} (status {status}); correct {origin.field}."
    )


def _denial(code: str, subject: Subject) -> str | None:
    """Return the problem of an error about credentials or permissions and its fix."""
    secret = subject.origin.secret
    if code in _EXPIRED:
        return f"the credentials have expired; renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN in {secret}"
    return {
        "AccessDenied": f"{subject.server} denies access, or the object does not exist; allow the owner of the keys s3:GetObject and"
        f" s3:ListBucket on bucket {subject.bucket}",
        "AllAccessDisabled": "access to the object is disabled; use another object",
        "InvalidAccessKeyId": f"{subject.server} does not know the access key; correct AWS_ACCESS_KEY_ID in {secret}",
        "SignatureDoesNotMatch": f"the secret key does not belong to the access key; correct AWS_SECRET_ACCESS_KEY in {secret}",
        "InvalidToken": f"the session token is not valid; renew or remove AWS_SESSION_TOKEN in {secret}",
        "InvalidTokenId": f"the session token is not valid; renew or remove AWS_SESSION_TOKEN in {secret}",
        "RequestTimeTooSkewed": f"the clocks of this node and of {subject.server} differ by more than 15 minutes; correct the clock that"
        " is wrong",
        "InvalidObjectState": "the object is archived; restore it first",
    }.get(code)


def _region_problem(error: Any, subject: Subject) -> str:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    field = f"{subject.origin.repo_type}.region"
    region = error.response.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")
    return (
        f"bucket {subject.bucket} is in region {region}; set {field} to {region}"
        if region
        else f"bucket {subject.bucket} is in another region; set {field}"
    )


def _tls_detail(error: BaseException) -> str:
    text = str(error)
    at = text.find("certificate verify failed")
    return first_line(Exception(text[at:].split(" (_ssl", maxsplit=1)[0]), 200) if at >= 0 else _reason(error)


def _reason(error: BaseException) -> str:
    """Return the text of an exception on one line, without the URL of the request, whose query may have a signature."""
    text = " ".join(str(error).split()).rstrip(".")
    return (text.split("?")[0] if "://" in text else text)[:200] or type(error).__name__
