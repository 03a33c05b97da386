"""Accepted forms of URIs, as rules of the CRD.

A bare string is a Hub ID, a local path begins with ``/``, ``./``, ``../`` or ``~/``, and any other URI has a scheme and a host, a
bucket, a claim or a path. ``finetune_stages.sources.uri`` parses the same forms. Messages list only forms that this release supports.
"""

from __future__ import annotations

from collections.abc import Sequence

from .section import Rule

CONTROL = r"[\x00-\x1f\x7f]"
"""RE2: one control character. No path, host or ID contains one, and NUL crashes programs."""

LOCAL_PREFIXES = ("/", "./", "../", "~/")


def is_local_path(uri: str) -> bool:
    """Return whether a URI is a path: ``/``, ``./``, ``../``, ``~/`` or ``file://``. Any other bare string is a hub id."""
    return uri.startswith((*LOCAL_PREFIXES, "file://"))


_WORD = r"\w+(\.?(-\.)*-?\w+)*"
HUB_ID = rf"{_WORD}(/{_WORD})?"
"""RE2: ``name`` or ``owner/name``, by the rules of ``huggingface_hub.utils.validate_repo_id``."""
_CONFIG = r'(:[^:/\\|*?<>"]+)?'
_HOST = r"(\[[0-9A-Fa-f:.%]+\]|[^-./?#:@ \[\]][^/?#:@ \[\]]*)"
WEB = rf"https?://([^/?#@ ]+@)?{_HOST}(:[0-9]{{1,5}})?([/?#][^ ]*)?"
"""RE2: URL with a host."""
_BUCKET = r"[A-Za-z0-9][-A-Za-z0-9._]*"
_S3 = rf"s3://{_BUCKET}(/[^ ]*)?"
_IMAGE = r"oci://[A-Za-z0-9][^ ]*"
_CLAIM = r"pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[^ ]+"
_FILE = r"file:///.+"
_LOCAL = r"(/|\./|\.\./|~/).*"

_DATA_FILE = r"(?i)\.(jsonl?|ndjson|csv|tsv|parquet|arrow|txt|xlsx?|zip|tar|tgz|gz|bz2|xz|zst)(:[^/\\]*)?$"
_MODEL_FILE = r"(?i)\.(safetensors|gguf|ggml|bin|pth?|ckpt|onnx|zip|tar|tgz|gz)$"

_DATA_FORMS = (_LOCAL, _FILE, WEB, _S3, _CLAIM, rf"(hf://)?{HUB_ID}{_CONFIG}")
_MODEL_FORMS = (_LOCAL, _FILE, _S3, _CLAIM, _IMAGE, rf"(hf://)?{HUB_ID}")
PUBLISHED = rf"^({_S3}|{_IMAGE})$"
"""RE2: accepted forms of ``publish.uri``."""


def data_rules(field: str) -> tuple[Rule, ...]:
    """Return the rules for the URI of a dataset in ``self.<field>``; ``field`` is optional."""
    words = "a hub id (owner/name), hf://<id>, https://<host>/<file>, or a local path that begins with /, ./, ../, ~/ or file:///"
    return _rules("dataset", field, _DATA_FORMS, _DATA_FILE, words)


def model_rules(field: str) -> tuple[Rule, ...]:
    """Return the rules for the URI of a model in ``self.<field>``; ``field`` is optional."""
    words = "a hub id (owner/name), hf://<id>, or a local directory that begins with /, ./, ../, ~/ or file:///"
    return _rules("model", field, _MODEL_FORMS, _MODEL_FILE, words)


def _rules(section: str, field: str, forms: Sequence[str], file: str, words: str) -> tuple[Rule, ...]:
    uri, name = f"self.{field}", f"{section}.{field}"
    control = f"{uri}.matches(r'{CONTROL}')"
    file_name = f"(!{uri}.contains('://') && !{uri}.matches(r'^{_LOCAL}') && {uri}.matches(r'{file}'))"
    form = f"{uri}.matches(r'^({'|'.join(forms)})$')"
    return (
        Rule(f"!has({uri}) || !{control}", f"{name} has a control character; remove it", field=f".{field}"),
        Rule(
            f"!has({uri}) || !{file_name}",
            f"{name} is named like a file, but without ./ before it it is a hub id; write ./<file> for a local path, or hf://<id>",
            field=f".{field}",
        ),
        Rule(
            f"!has({uri}) || {control} || {file_name} || {form}",
            f"{name} has none of the forms of a URI; write {words}",
            field=f".{field}",
        ),
    )
