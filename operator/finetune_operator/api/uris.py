"""CRD rules for the URIs of data sets and models.

The forms and their parser are in :mod:`finetune_contract.uris`. Messages name only forms that this release reads.
"""

from __future__ import annotations

from finetune_contract.uris import CONTROL, EDGE_SPACE, FILE_NAMES, FORMS, IMAGE, LOCAL, S3, SCHEME_ALONE, UriKind

from .section import Rule

PUBLISHED = rf"^({S3}|{IMAGE})$"
"""RE2: what ``publish.uri`` can be."""

_EXAMPLES: dict[UriKind, str] = {
    "dataset": "a hub id (owner/name), hf://<id>, https://<host>/<file>, s3://<bucket>/<key>, pvc://<claim>/<path>, or a local path that begins with"
    " /, ./, ../, ~/ or file:///",
    "model": "a hub id (owner/name), hf://<id>, oci://<registry>/<repository>:<tag>, s3://<bucket>/<prefix>/, pvc://<claim>/<directory>, or a local"
    " directory that begins with /, ./, ../, ~/ or file:///",
}


def uri_rules(kind: UriKind, field: str) -> tuple[Rule, ...]:
    """Return the rules for the URI in ``self.<field>`` of section ``kind``; the field may be absent."""
    uri, name = f"self.{field}", f"{kind}.{field}"
    control, space = f"{uri}.matches(r'{CONTROL}')", f"{uri}.matches(r'{EDGE_SPACE}')"
    file_name = f"(!{uri}.contains('://') && !{uri}.matches(r'^{LOCAL}') && {uri}.matches(r'{FILE_NAMES[kind]}'))"
    alone = f"{uri}.matches(r'{SCHEME_ALONE}')"
    form = f"{uri}.matches(r'^({'|'.join(FORMS[kind])})$')"
    return (
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
