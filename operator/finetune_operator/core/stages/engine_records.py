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
from finetune_operator.core.ownership import is_our_record
from finetune_operator.core.paths import Object, lookup
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.run import Run

from .base import ProgramStage, inputs_digest

_DIGEST = re.compile(r"@(sha256:[0-9a-f]{64})$")


def lookups(stage: ProgramStage, run: Run, objects: Mapping[Ref, Object]) -> tuple[Ref, ...]:
    """Return the objects that show an earlier answer: the runtime if it names the image, and the record if the image is known."""
    runtime = () if run.resolved.training.image else (_runtime(run),)
    image = image_digest(_image(run, objects))
    return runtime if image is None else (*runtime, _record_ref(_key(stage, run, image)))


def earlier_answer(stage: ProgramStage, run: Run, observed: Observed) -> str | None:
    """Return where an earlier run recorded that this image has an engine for the same values; ``None`` without such a record."""
    image = image_digest(_image(run, observed.objects))
    if image is None:
        return None
    key = _key(stage, run, image)
    ref = _record_ref(key)
    item = observed.objects.get(ref)
    if item is None or not is_our_record(item, observed.contents.get(ref), key):
        return None
    return f"training image {image}: it was checked before with the same values; ConfigMap {ref.name} has the result"


def record(stage: ProgramStage, run: Run, found: EngineCheckOutputs, pod: PodReport) -> Create | None:
    """Return the creation of the record; ``None`` if the kubelet reports no digest of the image either."""
    named = run.resolved.training.image or pod.image
    image = image_digest(named) or image_digest(pod.image_id)
    if image is None:
        return None
    key = _key(stage, run, image)
    return Create(engine_record(run.namespace, key, named, image, found), _record_ref(key))


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


def _key(stage: ProgramStage, run: Run, image: str) -> str:
    """Return the key of the record of an image. The variables and volumes of the pod are part of it: they can add packages."""
    needs = stage.pod(run)
    pod = [list(part) for part in (needs.environment, needs.volumes, needs.mounts)]
    found: str = digest({"image": image, "inputs": inputs_digest(stage, run), "pod": pod})
    return found


def _record_ref(key: str) -> Ref:
    return Ref(CONFIGMAP, naming.engine_record_name(key))
