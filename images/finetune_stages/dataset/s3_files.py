"""Objects of an ``s3://`` location with rows: one, the data files below a prefix, or those that match a glob."""

from __future__ import annotations

from finetune_contract.uris import S3Location
from finetune_stages.sources.file_names import has_wildcards
from finetune_stages.sources.origin import Origin
from finetune_stages.sources.s3 import Bucket, S3Object

from .several_files import data_below, require_few


def find_objects(bucket: Bucket, location: S3Location, origin: Origin) -> tuple[list[S3Object], tuple[str, ...]]:
    """Return the objects of the location in order, and warnings about the objects that are left out.

    Raises:
        StageError: ``DatasetUnreadable``: a prefix has objects of several splits; or one of the reasons of the origin.
    """
    key = location.key
    if has_wildcards(key):
        found = bucket.matching()
        require_few(len(found), location.shown, origin)
        return found, ()
    if not key or key.endswith("/"):
        below = {one.key.removeprefix(key): one for one in bucket.below()}
        chosen, warnings = data_below(list(below), location.shown, origin)
        return [below[name] for name in chosen], warnings
    return [bucket.single()], ()
