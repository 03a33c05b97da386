"""The forms that a URI of the resource can have, as rules of the CRD.

A bare string is a hub id, a local path begins with ``/``, ``./``, ``../`` or ``~/``, everything else has a scheme and names a host,
a bucket, a claim or a path. ``finetune_stages.sources.uri`` reads the same forms. Messages name only forms that this release reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from .section import Rule

CONTROL = r"[\x00-\x1f\x7f]"
"""RE2: one control character. No path, host or id has one, and NUL ends the process that meets it."""

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
"""RE2: an address with a host."""
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
"""RE2: what ``publish.uri`` can be."""


def data_rules(field: str) -> tuple[Rule, ...]:
    """Rules for the URI of a data set in ``self.<field>``; ``field`` may be absent."""
    words = "a hub id (owner/name), hf://<id>, https://<host>/<file>, or a local path that begins with /, ./, ../, ~/ or file:///"
    return _rules("dataset", field, _DATA_FORMS, _DATA_FILE, words)


def model_rules(field: str) -> tuple[Rule, ...]:
    """Rules for the URI of a model in ``self.<field>``; ``field`` may be absent."""
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
