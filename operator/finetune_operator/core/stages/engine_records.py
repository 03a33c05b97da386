"""Records of what stage *engine-check* found: a ConfigMap in the namespace for each image and each set of values that decides.

A record has no owner, so that it outlives its run. Only the digest of an image identifies it: a tag may name another image tomorrow, so a run
whose image is named by a tag is always checked. A failed check leaves no record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from finetune_contract.codec import digest
from finetune_contract.result import EngineCheckOutputs
from finetune_operator.api.kinds import CLUSTER_TRAINING_RUNTIME, CONFIGMAP
from finetune_operator.core import naming
from finetune_operator.core.decision import Create
from finetune_operator.core.manifests.children import engine_record
from finetune_operator.core.observation import Observed, Ref
from finetune_operator.core.paths import Object, lookup
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.run import Run

from .base import ProgramStage, inputs_digest

_DIGEST = re.compile(r"@(sha256:[0-9a-f]{64})$")


def lookups(stage: ProgramStage, run: Run, objects: Mapping[Ref, Object]) -> tuple[Ref, ...]:
    """Return the objects that show an earlier answer: the runtime if it names the image, and the record if the image is known."""
    runtime = () if run.resolved.training.image else (_runtime(run),)
    image = image_digest(_image(run, objects))
    return runtime if image is None else (*runtime, _record_ref(stage, run, image))


def earlier_answer(stage: ProgramStage, run: Run, observed: Observed) -> str | None:
    """Return where an earlier run recorded that this image has an engine for the same values; ``None`` without such a record."""
    image = image_digest(_image(run, observed.objects))
    if image is None:
        return None
    ref = _record_ref(stage, run, image)
    item = observed.objects.get(ref)
    if item is None or not _is_ours(item, observed.contents.get(ref)):
        return None
    return f"training image {image}: it was checked before with the same values; ConfigMap {ref.name} has the result"


def record(stage: ProgramStage, run: Run, found: EngineCheckOutputs, pod: PodReport) -> Create | None:
    """Return the creation of the record; ``None`` if the kubelet reports no digest of the image either."""
    named = run.resolved.training.image or pod.image
    image = image_digest(named) or image_digest(pod.image_id)
    if image is None:
        return None
    ref = _record_ref(stage, run, image)
    return Create(engine_record(run.namespace, ref.name, named, image, found), ref)


def image_digest(name: str | None) -> str | None:
    """Return the digest in the name of an image, ``sha256:...``; ``None`` without one."""
    found = _DIGEST.search(name or "")
    return found[1] if found else None


def _runtime(run: Run) -> Ref:
    return Ref(CLUSTER_TRAINING_RUNTIME, run.resolved.training.runtime_ref)


def _image(run: Run, objects: Mapping[Ref, Object]) -> str | None:
    """Return the name of the training image: that of the run, else that of its runtime; ``None`` if the runtime cannot be read."""
    if run.resolved.training.image:
        return run.resolved.training.image
    for job in lookup(objects.get(_runtime(run)) or {}, "spec.template.spec.replicatedJobs") or ():
        for container in lookup(job, "template.spec.template.spec.containers") or ():
            if job["name"] == container["name"] == naming.TRAINJOB_CONTAINER:
                return str(container.get("image") or "")
    return None


def _record_ref(stage: ProgramStage, run: Run, image: str) -> Ref:
    """Return the record of an image. The variables and volumes of its pod are part of the key: they can add packages."""
    needs = stage.pod(run)
    pod = [list(part) for part in (needs.environment, needs.volumes, needs.mounts)]
    return Ref(CONFIGMAP, naming.engine_record_name(digest({"image": image, "inputs": inputs_digest(stage, run), "pod": pod})))


def _is_ours(item: Object, content: str | None) -> bool:
    """Return whether this operator created a record, and its content is unchanged."""
    metadata = item["metadata"]
    managed = (metadata.get("labels") or {}).get(naming.MANAGED_BY_LABEL) == naming.MANAGED_BY
    return managed and content is not None and (metadata.get("annotations") or {}).get(naming.CONTENT_ANNOTATION) == content
