"""Whether the source of prepared data is still the same: what a later run asks before it takes the data over.

The digest of the inputs holds the address of the data, not its content. A file is read again, a web server is asked whether its
file has changed, and the hub which commit the revision is now; a revision that is a commit never changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from finetune_contract.documents import DatasetInputs, Scalar
from finetune_contract.uris import HubId
from finetune_stages.sdk import Context
from finetune_stages.sdk.workspace import file_sha256
from finetune_stages.sources.hub import COMMIT, find_repository, hub_cache, keep_caches_in
from finetune_stages.sources.local import require_file
from finetune_stages.sources.meter import Meter
from finetune_stages.sources.uri import parse_uri

from .wanted import Wanted, wanted_sources

PREPARATION = 3
"""Version of what is done to rows: a new one makes what the old one prepared useless, as it should be."""
PREPARATION_KEY = "preparation"

DATASETS = "datasets"
"""Name of the published directory in the run's folder."""
NAMES = ("uri", "evalUri")
"""The two sources, as their notes are named."""


def revalidate(context: Context, noted: Mapping[str, Scalar]) -> bool:
    """Return whether all sources are what was noted of them.

    Raises:
        StageError: the source cannot be asked, or is not there any more.
    """
    if noted.get(PREPARATION_KEY) != PREPARATION:
        return False
    sources = zip(wanted_sources(context.inputs(DatasetInputs)), NAMES, strict=False)
    return all(
        _same(
            wanted, {key.removeprefix(f"{name}."): value for key, value in noted.items() if key.startswith(f"{name}.")}, context
        )
        for wanted, name in sources
    )


def _same(wanted: Wanted, noted: Mapping[str, Scalar], context: Context) -> bool:
    place = parse_uri(wanted.uri, wanted.origin)
    if isinstance(place, HubId):
        if wanted.revision and COMMIT.fullmatch(wanted.revision):
            return noted.get("commit") == wanted.revision
        keep_caches_in(hub_cache(context))
        return noted.get("commit") == find_repository(wanted.origin, place.id, wanted.revision, context).commit
    if isinstance(place, Path):
        require_file(place, wanted.origin)
        meter = Meter(context, f"reading {place}", place.stat().st_size, high=0)
        return noted.get("sha256") == file_sha256(place, meter)
    from .web import is_still

    return is_still(place, noted)
