"""URIs of data sets and models: the forms that they can have, and their parser.

A local path begins with ``/``, ``./``, ``../``, ``~/`` or ``file:///``, any other bare string is a hub id, and everything else has a
scheme. The id of a data set ends at the first ``:``; its configuration follows, as in the OpenShift AI pipelines
(``LipengCS/Table-GPT:All``).

The CRD's rules use the patterns of this module, so admission accepts exactly the URIs that :func:`parse_uri` parses. The patterns are
in the syntax that RE2 (of CEL) and :mod:`re` share; :mod:`re` needs ``re.ASCII``. None of them can match one string in many ways, which
would take :mod:`re` exponential time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from .redaction import SECRET_PARAMETER

UriKind = Literal["dataset", "model"]

CONTROL = r"[\x00-\x1f\x7f]"
"""One control character. No path, host or id has one, and NUL ends the process that uses it."""
EDGE_SPACE = r"^ | $"
"""A space at the beginning or the end."""
SCHEME_ALONE = r"^(file|hf|https?|s3|pvc|oci):([^/]|/[^/]|/?$)"
"""A scheme without ``//``, which by its form is a hub id with a configuration."""
LOGIN = r"^[a-z0-9]+://[^/?#]*@"
"""A user, and maybe a password, before the host: anyone who can read the run, its Events or a registry's entry could read them."""
LOGIN_IN_TEXT = r"(?i)[a-z][a-z0-9+.-]*://[^/?#\s]*@"
"""A login in a URI of any scheme, anywhere in a text."""
S3_ENDPOINT_KEYS = ("AWS_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""Keys of a Secret, and variables, with the address of an S3 server: that of data connections, and those of AWS's own clients."""
DOCKER_HUB = "docker.io"
DOCKER_HUB_HOST = "registry-1.docker.io"
DOCKER_HUB_NAMES = (DOCKER_HUB, "index.docker.io", DOCKER_HUB_HOST)
"""Names of Docker Hub in images and pull secrets; clients contact the host."""
IMAGE_DIGEST = "@sha256:"
"""What may follow the name of an image although it looks like a login."""
SIGNATURE = rf"(?i)[?&#;]({SECRET_PARAMETER})="
"""A parameter with a signature, a token or a key, such as ``X-Amz-Signature``, ``sig`` or ``AWSAccessKeyId``."""
LOCAL_PREFIXES = ("/", "./", "../", "~/")
LOCAL = r"(/|\./|\.\./|~/).*"
_NEXT = "%[89ABab][0-9A-Fa-f]"
_ESCAPE = (
    "%[2-6][0-9A-Fa-f]|%7[0-9A-Ea-e]"
    f"|(%[Cc][2-9A-Fa-f]|%[Dd][0-9A-Fa-f]|%[Ee]0%[ABab][0-9A-Fa-f]|%[Ee][Dd]%[89][0-9A-Fa-f]|%[Ff]0%[9ABab][0-9A-Fa-f]{_NEXT}"
    f"|%[Ff]4%8[0-9A-Fa-f]{_NEXT}|(%[Ee][1-9A-CEFa-cef]|%[Ff][1-3]{_NEXT}){_NEXT}){_NEXT}"
)
"""The escapes of one character in UTF-8, by the table of well-formed sequences (Unicode, table 3-7); no control character of ASCII."""
FILE = rf"file:///([^%?#]|{_ESCAPE})+"
"""An absolute path."""

_SEPARATOR = r"(\.(-\.)*-?|-(\.-)*\.?)"
_WORD = rf"\w+({_SEPARATOR}\w+)*"
HUB_ID = rf"{_WORD}(/{_WORD})?"
"""``name`` or ``owner/name``, by the rules of ``huggingface_hub.utils.validate_repo_id`` except its limits of length."""
_CONFIG = r'(:[^:/\\|*?<>"]+)?'

_HOST = r"(\[[0-9A-Fa-f:.%]+\]|[^-./?#:@ \[\]][^/?#:@ \[\]]*)"
_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
WEB = rf"https?://([^/?#@ ]+@)?{_HOST}(:{_PORT})?([/?#][^ ]*)?"
"""A web address with a host."""
S3 = r"s3://[A-Za-z0-9][-A-Za-z0-9._]*(/[^ ]*)?"
_IMAGE_NAME = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
IMAGE = (
    rf"oci://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:{_PORT})?(/{_IMAGE_NAME})+(:\w[\w.-]{{0,127}})?(@sha256:[0-9a-f]{{64}})?"
)
"""An image of a registry, by the rules of the OCI distribution specification; the host is required."""
_SEGMENT = r"([^ /.][^ /]*|\.[^ /.][^ /]*|\.\.[^ /]+)"
_CLAIM_NAME = r"pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
CLAIM = rf"{_CLAIM_NAME}(/{_SEGMENT})+/?"
"""A path on a claim, without the segments ``.`` and ``..``: a path cannot leave its volume."""
CLAIM_DIRECTORY = rf"{_CLAIM_NAME}(/{_SEGMENT})*/?"
"""The same, or the root of the volume."""

FILE_NAMES: Mapping[UriKind, str] = {
    "dataset": r"(?i)\.(jsonl?|ndjson|csv|tsv|parquet|arrow|feather|txt|xlsx?|zip|tar|tgz|gz|bz2|xz|zst)(:[^/\\]*)?$",
    "model": r"(?i)\.(safetensors|gguf|ggml|bin|pth?|ckpt|onnx|zip|tar|tgz|gz)$",
}
"""The end of a bare string that looks like the name of a file, although by its form it is a hub id."""
FORMS: Mapping[UriKind, tuple[str, ...]] = {
    "dataset": (LOCAL, FILE, WEB, S3, CLAIM, rf"(hf://)?{HUB_ID}{_CONFIG}"),
    "model": (LOCAL, FILE, S3, CLAIM_DIRECTORY, IMAGE, rf"(hf://)?{HUB_ID}"),
}
"""All forms of the URIs of a kind."""

_FILE_OF_BYTES = "file:///([^%?#]|%([2-689A-Fa-f][0-9A-Fa-f]|7[0-9A-Ea-e]))+"
_STORAGE_FORMS: Mapping[str, str] = {
    "s3": "s3://<bucket>/<key>", "pvc": "pvc://<claim>/<path> without . and .. in the path", "oci": "oci://<registry>/<repository>:<tag> or oci://<registry>/<repository>@sha256:<digest>",
}  # fmt: skip
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_READABLE: Mapping[UriKind, str] = {
    "dataset": "use a hub id, hf://, https://, s3://, pvc:// or a local path",
    "model": "use a hub id, hf://, oci://, s3://, pvc:// or a local directory",
}


class UriError(ValueError):
    """A URI has none of the forms. The message has the problem and its fix, and no credentials."""


@dataclass(frozen=True)
class LocalPath:
    """A file or a directory of the machine that reads the URI; the path may be relative or begin with ``~/``."""

    path: str


@dataclass(frozen=True)
class WebAddress:
    """A file at an ``http://`` or ``https://`` address."""

    url: str

    @property
    def shown(self) -> str:
        """The address for messages: without credentials and without the query, which may hold a signature."""
        return _public(self.url)[0]


@dataclass(frozen=True)
class HubId:
    """A repository of the Hugging Face hub, or of the server that ``HF_ENDPOINT`` names."""

    id: str
    config: str | None = None


@dataclass(frozen=True)
class S3Location:
    """An object of an S3 bucket, or several: ``key`` is a key, a glob, or a prefix that ends with ``/`` (empty: the whole bucket)."""

    bucket: str
    key: str

    @property
    def shown(self) -> str:
        """The location for messages."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class ClaimPath:
    """A file, a directory or a glob on the volume of a PersistentVolumeClaim; ``path`` is relative to the root of the volume."""

    claim: str
    path: str

    @property
    def shown(self) -> str:
        """The location for messages."""
        return f"pvc://{self.claim}/{self.path}"


@dataclass(frozen=True)
class ImageReference:
    """An image of a registry: by digest, or by a tag, which can be moved.

    Attributes:
        registry: the host, with its port.
        digest: ``sha256:`` and 64 digits.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def shown(self) -> str:
        """The reference for messages."""
        tag, digest = f":{self.tag}" if self.tag else "", f"@{self.digest}" if self.digest else ""
        return f"oci://{self.registry}/{self.repository}{tag}{digest}"


ParsedUri = LocalPath | WebAddress | HubId | S3Location | ClaimPath | ImageReference


def parse_uri(uri: str, kind: UriKind) -> ParsedUri:
    """Return what a URI of this kind refers to.

    Raises:
        UriError: The URI has none of the forms of its kind.
    """
    if re.search(CONTROL, uri) or _SURROGATE.search(uri):
        raise UriError(f"{shown(uri)!a} has a control character or half of a character; remove it")
    if re.search(EDGE_SPACE, uri):
        raise UriError(f"{shown(uri)!r} begins or ends with a space; remove the space")
    if uri.startswith(LOCAL_PREFIXES):
        return LocalPath(uri)
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return _bare_hub_id(uri, kind)
    if scheme == "hf":
        return _hub_id(rest, kind)
    if scheme == "file":
        return _file(uri)
    if scheme in ("http", "https") and WEB in FORMS[kind]:
        return _web_address(uri)
    form = next((form for form in FORMS[kind] if scheme in _STORAGE_FORMS and form.startswith(f"{scheme}://")), None)
    if form:
        return _storage(scheme, uri, form)
    raise UriError(f"{scheme}:// is not a scheme of a {kind}; {_READABLE[kind]}")


def local_path(uri: str) -> str | None:
    """Return the path that a local URI names; ``None`` for other URIs and for malformed ones."""
    if not is_local_path(uri):
        return None
    try:
        parsed = parse_uri(uri, "dataset")
    except UriError:
        return None
    return parsed.path if isinstance(parsed, LocalPath) else None


def is_local_path(uri: str) -> bool:
    """Return whether a URI, well formed or not, begins like a local path."""
    return uri.startswith((*LOCAL_PREFIXES, "file://"))


def shown(uri: str) -> str:
    """Return a URI, well formed or not, for messages: without credentials, and without a query or fragment, which may hold a signature.

    If a slash or a question mark inside a password hides where the credentials end, only the scheme is left.
    """
    public, hidden = _public(uri)
    return f"{public}..." if hidden else public


def _public(uri: str) -> tuple[str, bool]:
    """Return the part of a URI that is no secret, and whether something after it is left out."""
    if uri.startswith(LOCAL_PREFIXES):
        return uri, False
    scheme, separator, rest = uri.partition("://")
    if not separator:
        scheme, rest = "", uri
    address = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority, slash, path = address.partition("/")
    _, at, host = authority.rpartition("@")
    if not at and ":" in authority and "@" in rest:
        return f"{scheme}{separator}", True
    return f"{scheme}{separator}{host}{slash}{path}", len(address) < len(rest)


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text, re.ASCII) is not None


def _bare_hub_id(uri: str, kind: UriKind) -> HubId:
    if re.search(SCHEME_ALONE, uri, re.ASCII):
        raise UriError(f"{shown(uri)!r} lacks // after its scheme; write {uri.partition(':')[0]}://, or hf://<id> for a hub id")
    if re.search(FILE_NAMES[kind], uri, re.ASCII):
        raise UriError(f"{shown(uri)!r} is named like a file; write ./<file> for a local path, or hf://<id> for a hub id")
    return _hub_id(uri, kind)


def _hub_id(text: str, kind: UriKind) -> HubId:
    if not _matches(FORMS[kind][-1], text) or "://" in text:
        raise UriError(
            f"{shown(text)!r} is not a hub id; write <name> or <owner>/<name>, or begin a local path with /, ./, ../ or ~/"
        )
    name, _, config = text.partition(":")
    return HubId(name, config or None)


def _file(uri: str) -> LocalPath:
    if not _matches(FILE, uri):
        if _matches(_FILE_OF_BYTES, uri):
            raise UriError(f"{shown(uri)} has an escape that is not UTF-8; write the name in UTF-8, such as %C3%BC for \u00fc")
        raise UriError(
            f"{shown(uri)} is not a file URI; write file:///<folder>/<file> with three slashes, and %, ? and # in a name as"
            " %25, %3F and %23"
        )
    return LocalPath(unquote(uri.removeprefix("file://")))


def _web_address(uri: str) -> WebAddress:
    if not _matches(WEB, uri):
        host = re.split(r"[/?#]", uri.partition("://")[2], maxsplit=1)[0].rpartition("@")[2]
        problem = "it names no host" if not host or host.startswith(":") else "its host or port is malformed"
        if " " in uri:
            problem = "it has a space"
        raise UriError(f"{shown(uri)} is not a web address, {problem}; write https://<host>/<file>")
    _reject_credentials(uri)
    return WebAddress(uri)


def _reject_credentials(uri: str) -> None:
    """Raise an error for a URI with a login or a signature."""
    if re.search(LOGIN, uri) and not (uri.startswith("oci://") and IMAGE_DIGEST in uri):
        raise UriError(f"{shown(uri)} has a login before its host; remove it, and put the login into a Secret")
    if re.search(SIGNATURE, uri):
        raise UriError(f"{shown(uri)} has a signature, a token or a key; remove it, and put the login into a Secret")


def _storage(scheme: str, uri: str, form: str) -> S3Location | ClaimPath | ImageReference:
    _reject_credentials(uri)
    if not _matches(form, uri):
        raise UriError(f"{shown(uri)} is not an address of {scheme}://{_storage_problem(scheme, uri)}")
    rest = uri.partition("://")[2]
    if scheme == "oci":
        return _image(rest)
    first, _, path = rest.partition("/")
    return S3Location(first, path) if scheme == "s3" else ClaimPath(first, path)


def _image(text: str) -> ImageReference:
    name, _, digest = text.partition("@")
    registry, _, path = name.partition("/")
    repository, _, tag = path.partition(":")
    return ImageReference(registry, repository, tag or (None if digest else "latest"), digest or None)


def _storage_problem(scheme: str, uri: str) -> str:
    repository = uri.partition("://")[2].partition("/")[2].partition(":")[0]
    if scheme == "oci" and repository != repository.lower():
        return ", its repository has upper-case letters; registries accept lower case only"
    if " " in uri:
        return ", it has a space; write ? for the space" if scheme == "s3" else ", it has a space; remove the space"
    return f"; write {_STORAGE_FORMS[scheme]}"
