"""CRD rules for the URIs of data sets and models.

The forms and their parser are in :mod:`finetune_contract.uris`. Messages name only forms that this release reads.
"""

from __future__ import annotations

from finetune_contract.uris import (
    CONTROL,
    EDGE_SPACE,
    FILE_NAMES,
    FORMS,
    IMAGE,
    IMAGE_DIGEST,
    LOCAL,
    LOGIN,
    S3,
    SCHEME_ALONE,
    SIGNATURE,
    UriKind,
)

from .section import Rule

PUBLISHED = rf"^({S3}|{IMAGE})$"
"""RE2: what ``publish.uri`` can be."""

_EXAMPLES: dict[UriKind, str] = {
    "dataset": "a hub id (owner/name), hf://<id>, https://<host>/<file>, s3://<bucket>/<key>, pvc://<claim>/<path>, or a local path that begins with"
    " /, ./, ../, ~/ or file:///",
    "model": "a hub id (owner/name), hf://<id>, oci://<registry>/<repository>:<tag>, s3://<bucket>/<prefix>/, pvc://<claim>/<directory>, or a local"
    " directory that begins with /, ./, ../, ~/ or file:///",
}


_SECRETS: dict[UriKind, str] = {
    "dataset": "name a Secret in dataset.secretRef: with HTTP_AUTHORIZATION for https://, with AWS_ACCESS_KEY_ID and"
    " AWS_SECRET_ACCESS_KEY for s3://",
    "model": "name a Secret in model.secretRef",
}


def credential_rules(section: str, field: str, remedy: str) -> tuple[Rule, ...]:
    """Return the rules against credentials in the URI in ``self.<field>``, which everybody who may read the run could read."""
    uri, name = f"self.{field}", f"{section}.{field}"
    is_local = f"{uri}.matches(r'^{LOCAL}')"
    return (
        Rule(
            f"!has({uri}) || ({uri}.startsWith('oci://') && {uri}.contains('{IMAGE_DIGEST}')) || !{uri}.matches(r'{LOGIN}')",
            f"{name} has a login before its host; remove it, and {remedy}",
            field=f".{field}",
        ),
        Rule(
            f"!has({uri}) || {is_local} || !{uri}.matches(r'{SIGNATURE}')",
            f"{name} has a signature, a token or a key; remove it, and {remedy}",
            field=f".{field}",
        ),
    )


def uri_rules(kind: UriKind, field: str) -> tuple[Rule, ...]:
    """Return the rules for the URI in ``self.<field>`` of section ``kind``; the field may be absent."""
    uri, name = f"self.{field}", f"{kind}.{field}"
    control, space = f"{uri}.matches(r'{CONTROL}')", f"{uri}.matches(r'{EDGE_SPACE}')"
    file_name = f"(!{uri}.contains('://') && !{uri}.matches(r'^{LOCAL}') && {uri}.matches(r'{FILE_NAMES[kind]}'))"
    alone = f"{uri}.matches(r'{SCHEME_ALONE}')"
    form = f"{uri}.matches(r'^({'|'.join(FORMS[kind])})$')"
    return (
        *credential_rules(kind, field, _SECRETS[kind]),
        Rule(f"!has({uri}) || !{control}", f"{name} has a control character; remove it", field=f".{field}"),
        Rule(f"!has({uri}) || !{space}", f"{name} begins or ends with a space; remove the space", field=f".{field}"),
        Rule(
            f"!has({uri}) || !{alone}",
            f"{name} lacks // after its scheme; write <scheme>://, or hf://<id> for a hub id",
            field=f".{field}",
        ),
        Rule(
            f"!has({uri}) || {space} || {alone} || !{file_name}",
            f"{name} is named like a file, but without ./ before it it is a hub id; write ./<file> for a local path, or hf://<id>",
            field=f".{field}",
        ),
        Rule(
            f"!has({uri}) || {control} || {space} || {alone} || {file_name} || {form}",
            f"{name} has none of the forms of a URI; write {_EXAMPLES[kind]}",
            field=f".{field}",
        ),
    )
