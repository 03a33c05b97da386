"""Faulty defaults: what no API server validates, and the sentence about each."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
VOLUME: Json = {"name": "a", "emptyDir": {}}


def place(**placement: Any) -> Json:
    return {"training": {"placement": placement}}


def node(*terms: Json) -> Json:
    return place(
        affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}
    )


def expr(**requirement: Any) -> Json:
    return node({"matchExpressions": [{"key": "gpu", **requirement}]})


def vol(*volumes: Json) -> Json:
    return {"training": {"volumes": list(volumes)}}


def mount(*mounts: Json, volumes: tuple[Json, ...] = (VOLUME,)) -> Json:
    return {"training": {"volumes": list(volumes), "volumeMounts": [{"name": "a", **one} for one in mounts]}}


def env(*variables: Json) -> Json:
    return {"training": {"env": list(variables)}}


def gate(**bounds: Any) -> Json:
    return {"gate": {"requirements": [{"metric": "arc_easy.acc", **bounds}]}}


FAULTY: tuple[tuple[Json, str], ...] = (
    (place(tolerations=[{"effect": "NoSchedule"}]),
     ("training.placement.tolerations[0]: a toleration without key tolerates every taint and needs operator: Exists; add key, or set"
      " operator: Exists.")),
    (place(tolerations=[{"key": "gpu", "operator": "Exists", "value": "a"}]),
     "training.placement.tolerations[0].value: operator Exists takes no value; remove value, or set operator: Equal."),
    (place(tolerations=[{"key": "gpu", "effect": "NoSchedule", "tolerationSeconds": 5}]),
     ("training.placement.tolerations[0].tolerationSeconds: tolerationSeconds counts only with effect: NoExecute; set that effect, or"
      " remove tolerationSeconds.")),
    ({"evaluation": {"placement": {"tolerations": [{"key": "gpu", "tolerationSeconds": 5}]}}},
     ("evaluation.placement.tolerations[0].tolerationSeconds: tolerationSeconds counts only with effect: NoExecute; set that effect, or"
      " remove tolerationSeconds.")),
    (expr(operator="In"),
     ("training.placement.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values:"
      " operators In and NotIn need values; add values, or use Exists or DoesNotExist.")),
    (expr(operator="Exists", values=["a"]),
     ("training.placement.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values:"
      " operators Exists and DoesNotExist take no values; remove values, or use In or NotIn.")),
    (expr(operator="Gt", values=["many"]),
     ("training.placement.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values:"
      " operators Gt and Lt need one value that is a whole number; correct values.")),
    (expr(operator="Lt", values=["1", "2"]),
     ("training.placement.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values:"
      " operators Gt and Lt need one value that is a whole number; correct values.")),
    (node({"matchExpressions": []}),
     ("training.placement.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: an empty term of"
      " nodeSelectorTerms matches no node; add matchExpressions or matchFields, or remove the term.")),
    (place(affinity={"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {"matchExpressions": [{"key": "gpu", "operator": "NotIn", "values": []}]}}]}}),
     ("training.placement.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values:"
      " operators In and NotIn need values; add values, or use Exists or DoesNotExist.")),
    (place(affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone", "labelSelector": {"matchLabels": {"a b": "c"}}}]}}),
     ("training.placement.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector.matchLabels: matchLabels"
      " has a key that is not a label's key; write <name> or <prefix>/<name>: a name of at most 63 letters, digits, '-', '_' and '.', and a"
      " prefix that is a DNS name in lower case.")),
    (place(affinity={"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist", "values": ["a"]}]}}}]}}),
     ("training.placement.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector.matchExpressions[0].values:"
      " operators Exists and DoesNotExist take no values; remove values, or use In or NotIn.")),
    (place(nodeSelector={"Gpu/": "a"}),
     ("training.placement.nodeSelector: nodeSelector has a key that is not a label's key; write <name> or <prefix>/<name>: a name of at"
      " most 63 letters, digits, '-', '_' and '.', and a prefix that is a DNS name in lower case.")),
    (place(labels={"a b": "c"}),
     ("training.placement.labels: labels has a key that is not a label's key; write <name> or <prefix>/<name>: a name of at most 63"
      " letters, digits, '-', '_' and '.', and a prefix that is a DNS name in lower case.")),
    (place(labels={"job-name": "a"}),
     ("training.placement.labels: labels of finetunerun.io/, jobset.sigs.k8s.io/, batch.kubernetes.io/, trainer.kubeflow.org/, and"
      " app.kubernetes.io/managed-by, job-name and controller-uid, belong to controllers; choose another key.")),
    (place(labels={"finetunerun.io/stage": "a"}),
     ("training.placement.labels: labels of finetunerun.io/, jobset.sigs.k8s.io/, batch.kubernetes.io/, trainer.kubeflow.org/, and"
      " app.kubernetes.io/managed-by, job-name and controller-uid, belong to controllers; choose another key.")),
    (place(annotations={"a b": "c"}),
     ("training.placement.annotations: annotations has a key that is not an annotation's key; write <name> or <prefix>/<name>: a name of at"
      " most 63 letters, digits, '-', '_' and '.', and a prefix that is a DNS name.")),
    (place(annotations={"Trainer.Kubeflow.org/x": "c"}),
     ("training.placement.annotations: annotations of finetunerun.io/, jobset.sigs.k8s.io/, batch.kubernetes.io/, trainer.kubeflow.org/"
      " belong to controllers; choose another key.")),
    (env({"name": "A"}), "training.env[0]: an entry of env needs exactly one of value and valueFrom."),
    (env({"name": "A", "value": "b", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}),
     "training.env[0]: an entry of env needs exactly one of value and valueFrom."),
    (env({"name": "A", "value": "b"}, {"name": "A", "value": "c"}), "training.env: names a variable twice; keep one of them."),
    (env({"name": "PET_NNODES", "value": "2"}),
     "training.env[0].name: names that begin with PET_ or FINETUNE_ belong to Kubeflow Trainer and to the operator; choose another name."),
    (env({"name": "FINETUNE_HOME", "value": "/a"}),
     "training.env[0].name: names that begin with PET_ or FINETUNE_ belong to Kubeflow Trainer and to the operator; choose another name."),
    (env({"name": "A", "value": "b\x01"}),
     "training.env[0].value: the value has a control character such as NUL, which no environment variable can have; remove it."),
    (vol({"name": "a"}), "training.volumes[0]: a volume needs exactly one of persistentVolumeClaim, configMap, secret and emptyDir."),
    (vol({"name": "a", "emptyDir": {}, "secret": {"secretName": "s"}}),
     "training.volumes[0]: a volume needs exactly one of persistentVolumeClaim, configMap, secret and emptyDir."),
    (vol({"name": "workspace", "emptyDir": {}}),
     ("training.volumes[0].name: the volume names workspace, training-folder, training-results, documents, scratch, shared-memory, training-bundle belong to the operator;"
      " choose another name.")),
    (vol(VOLUME, VOLUME), "training.volumes: names a volume twice; rename or remove one of them."),
    (mount({"mountPath": "data"}),
     ("training.volumeMounts[0].mountPath: mountPath is not a clean absolute path; write it with single slashes, without . and .. and"
      " without colons, such as /data.")),
    (mount({"mountPath": "/data/../etc"}),
     ("training.volumeMounts[0].mountPath: mountPath is not a clean absolute path; write it with single slashes, without . and .. and"
      " without colons, such as /data.")),
    (mount({"mountPath": "/workspace/data"}),
     ("training.volumeMounts[0].mountPath: mountPath hides files that training needs; choose a path that is not /tmp or /opt and not in"
      " /workspace, /etc, /opt/finetune, /opt/app-root, /dev, /proc, /sys, /usr, /bin, /sbin, /lib, /lib32, /lib64, /root, /home, /var, /run"
      " or a directory of Python packages.")),
    (mount({"mountPath": "/tmp"}),
     ("training.volumeMounts[0].mountPath: mountPath hides files that training needs; choose a path that is not /tmp or /opt and not in"
      " /workspace, /etc, /opt/finetune, /opt/app-root, /dev, /proc, /sys, /usr, /bin, /sbin, /lib, /lib32, /lib64, /root, /home, /var, /run"
      " or a directory of Python packages.")),
    (mount({"mountPath": "/data", "subPath": "../b"}),
     "training.volumeMounts[0].subPath: subPath leaves the volume; write a relative path without ..."),
    (mount({"mountPath": "/data"}, {"mountPath": "/data/"}), "training.volumeMounts: has two mounts at one mountPath; move or remove one of them."),
    (mount({"mountPath": "/data"}, volumes=[{"name": "b", "emptyDir": {}}]),
     "training.volumeMounts: each entry of training.volumeMounts needs a volume of that name in training.volumes."),
    ({"training": {"image": "registry.example.com/a image"}},
     "training.image: is not the name of an image; write <registry>/<repository>:<tag> without https:// and spaces, the repository in lower case."),
    ({"training": {"effectiveBatchSize": 10, "microBatchSize": 4}},
     "training.microBatchSize: training.effectiveBatchSize must be a multiple of training.microBatchSize."),
    ({"training": {"effectiveBatchSize": 10, "workers": 4}},
     ("training.effectiveBatchSize: cannot be shared evenly by all training processes; use a multiple of training.workers times"
      " training.processesPerWorker.")),
    ({"training": {"effectiveBatchSize": 12, "workers": 2, "processesPerWorker": 4}},
     ("training.effectiveBatchSize: cannot be shared evenly by all training processes; use a multiple of training.workers times"
      " training.processesPerWorker.")),
    ({"training": {"maxTokensPerGPU": 1024, "maxSeqLen": 2048}},
     "training.maxTokensPerGPU: must be at least training.maxSeqLen, or the longest rows fit nowhere."),
    ({"dataset": {"evalUri": "org/held-out", "trainSplit": 0.8}},
     "dataset.trainSplit: with dataset.evalUri every row of dataset.uri is trained on: remove trainSplit or set it to 1."),
    ({"dataset": {"uri": "https://example.com/rows.jsonl", "revision": "v1"}}, "dataset.revision: is for hub data sets only; remove it."),
    ({"dataset": {"uri": "https://example.com/rows.jsonl", "split": "train"}}, "dataset.split: is for hub data sets only; remove it."),
    ({"evaluation": {"enabled": False, "baseline": True}}, "evaluation.baseline: needs evaluation.enabled; remove one of them."),
    ({"evaluation": {"tasks": [], "holdout": False}},
     ("evaluation.tasks: evaluation has nothing to measure: evaluation.tasks is empty and evaluation.holdout is false; name a task, remove"
      " evaluation.holdout, or set evaluation.enabled to false.")),
    ({"evaluation": {"enabled": False}, **gate(min=0.5)}, "gate: a gate needs an evaluation: remove gate, or set evaluation.enabled to true."),
    ({"evaluation": {"onFailure": "Continue"}, **gate(min=0.5)},
     "evaluation.onFailure: Continue would pass the gate unmeasured; remove it or the gate."),
    ({"evaluation": {"tasks": ["hellaswag"]}, **gate(min=0.5)},
     ("gate.requirements: a metric of gate.requirements belongs to no task in evaluation.tasks; name <task>.<metric> or holdout.<metric>,"
      " or add its task to evaluation.tasks.")),
    ({"evaluation": {"holdout": False}, "gate": {"requirements": [{"metric": "holdout.loss", "max": 1}]}},
     ("gate.requirements: a metric of gate.requirements is measured on held-out rows, and evaluation.holdout is false; remove"
      " evaluation.holdout, or the requirement.")),
    ({"gate": {"requirements": [{"metric": "holdout.accuracy", "max": 1}]}},
     ("gate.requirements: held-out rows have only the metrics holdout.bits_per_byte, holdout.bits_per_byte_stderr, holdout.loss,"
      " holdout.loss_stderr; name one of them in gate.requirements.")),
    (gate(), "gate.requirements[0]: a requirement of the gate needs min, max or maxRegression."),
    (gate(min=0.9, max=0.1), "gate.requirements[0].min: min must not be above max."),
    ({"gate": {"requirements": [{"metric": "arc_easy.acc_stderr", "maxRegression": 0.1}]}},
     "gate.requirements[0].maxRegression: a standard error has no good direction, so that maxRegression cannot compare it; use min or max."),
    ({"storage": {"claimName": "mine", "size": "9Gi"}}, "storage.claimName: names an existing claim: remove size, storageClassName and accessModes."),
    ({"storage": {"accessModes": ["ReadWriteOncePod", "ReadWriteMany"]}},
     "storage.accessModes: ReadWriteOncePod excludes every other mode; name it alone, or remove it."),
    ({"storage": {"accessModes": ["ReadWriteOncePod"]}, "training": {"workers": 2}},
     "storage.accessModes: a volume of mode ReadWriteOncePod has room for one pod, and training.workers is above 1; choose another access mode."),
    ({"storage": {"size": "1" * 33}}, "storage.size: is too large; write a number with a suffix, such as 64Gi."),
    ({"storage": {"size": 2**63}}, "storage.size: is too large; write a number with a suffix, such as 64Gi."),
    ({"training": {"resources": {"memory": " 1Gi"}}},
     ("training.resources.memory: not a quantity of 0 or more; write a whole number, or in quotes a number with an optional suffix, such as"
      " 0.5, 500m, 2, 1e3, 64Gi or 1Ei.")),
)  # fmt: skip
"""Defaults in the schema of ``spec``, and the sentence after the name of their origin."""
