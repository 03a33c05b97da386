"""Objects that were accepted and could not work, and what the API server and ``finetune validate`` answer now.

``given`` is laid over ``{"dataset": {"uri": "org/chat"}}``; ``expected`` maps each field of the answer to words of its message and is empty
where the object is valid.
"""

from __future__ import annotations

from typing import Any

from finetune_operator.api.presets import overlay
from reports.report import Report

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_SCRATCH = {"name": "a", "emptyDir": {}}


def spec(given: dict[str, Any]) -> dict[str, Any]:
    """The whole ``spec`` of a report."""
    return overlay({"dataset": {"uri": "org/chat"}}, given)


def manifest(report: Report) -> dict[str, Any]:
    """The object of a report."""
    head = {"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": {"name": "r"}}
    return {**head, "spec": spec(report.given)}


def _at(path: str, words: str) -> dict[str, str]:
    return {f"spec.{path}": words}


def _training(**fields: Any) -> dict[str, Any]:
    return {"training": fields}


def _mount(path: str, **fields: Any) -> dict[str, Any]:
    return _training(volumes=[_SCRATCH], volumeMounts=[{"name": "a", "mountPath": path, **fields}])


def _placed(**fields: Any) -> dict[str, Any]:
    return _training(placement=fields)


def _nodes(*terms: dict[str, Any]) -> dict[str, Any]:
    return _placed(affinity={"nodeAffinity": {_REQUIRED: {"nodeSelectorTerms": list(terms)}}})


def _pods(selector: dict[str, Any]) -> dict[str, Any]:
    return _placed(affinity={"podAffinity": {_REQUIRED: [{"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}]}})


def _gate(metric: str, **sections: Any) -> dict[str, Any]:
    return {"gate": {"requirements": [{"metric": metric, "max": 1}]}, **sections}


_NODES = f"training.placement.affinity.nodeAffinity.{_REQUIRED}.nodeSelectorTerms"
_TERM = f"{_NODES}[0]"
_POD = f"training.placement.affinity.podAffinity.{_REQUIRED}[0].labelSelector"
_QUANTITY = (
    "not a quantity of 0 or more; write a whole number, or in quotes a number with an optional suffix, such as 0.5, 500m, 2, 1e3"
)
_SIZE = "not a quantity above 0; write a whole number"
_HIDES = "mountPath hides files that training needs; choose a path"
_UNCLEAN = "mountPath is not a clean absolute path; write it with single slashes"
_KEY = "has a key that is not a label's key; write <name> or <prefix>/<name>"
_NO_ANNOTATION = "annotations has a key that is not an annotation's key; write <name>"
_CONTROLLERS = "labels of finetunerun.io/, jobset.sigs.k8s.io/, batch.kubernetes.io/, trainer.kubeflow.org/, and"
_UNMEASURED = "belongs to no task in evaluation.tasks; name <task>.<metric>"
_FILE = "is named like a file, but without ./ before it it is a hub id; write ./<file>"
_FORM = "has none of the forms of a URI; write a hub id (owner/name)"
_CONTROL = "has a control character; remove it"
_SPACE = "begins or ends with a space; remove the space"

_TABLE: tuple[tuple[str, str, dict[str, Any], dict[str, str]], ...] = (
    # The gate and what is measured.
    ("gate-on-another-task", "own", _gate("arc_easy_x.acc", evaluation={"tasks": ["arc_easy"]}), _at("gate.requirements", _UNMEASURED)),
    ("gate-without-tasks", "own", _gate("arc_easy.acc", evaluation={"tasks": []}), _at("gate.requirements", _UNMEASURED)),
    ("gate-on-a-task-of-a-tag", "own", _gate("arc_easy.acc", evaluation={"tasks": ["ai2_arc"]}), {}),
    ("gate-on-a-task-of-another-name-in-a-group", "own", _gate("cola.mcc", evaluation={"tasks": ["arc_easy", "glue"]}), {}),
    ("gate-on-a-task-of-a-group-of-the-user", "own", _gate("copa_de.acc", evaluation={"tasks": ["our_group"]}), {}),
    ("gate-on-a-variant-of-a-task", "own", _gate("gsm8k_cot.exact_match", evaluation={"tasks": ["gsm8k"]}),
     _at("gate.requirements", _UNMEASURED)),
    ("gate-on-a-task-of-a-group", "own", _gate("mmlu_anatomy.acc", evaluation={"tasks": ["mmlu"]}), {}),
    ("gate-on-held-out-rows-of-their-own", "own",
     _gate("holdout.bits_per_byte", dataset={"trainSplit": 1, "evalUri": "org/held-out"}), {}),
    ("gate-without-holdout", "own", _gate("holdout.loss", evaluation={"holdout": False}),
     _at("gate.requirements", "evaluation.holdout is false; remove evaluation.holdout, or the requirement")),
    ("gate-on-a-metric-that-held-out-rows-lack", "own", _gate("holdout.acc"),
     _at("gate.requirements", "held-out rows have only the metrics holdout.bits_per_byte")),
    ("gate-on-a-task-without-metric", "own", _gate("arc_easy."), _at("gate.requirements[0].metric", "write <task>.<metric>")),
    ("gate-on-a-regression-of-an-error", "own",
     {"gate": {"requirements": [{"metric": "arc_easy.acc_stderr", "maxRegression": 0.1}]}},
     _at("gate.requirements[0].maxRegression", "a standard error has no good direction, so that maxRegression cannot compare it; use min")),
    ("gate-that-requires-nothing", "own", {"gate": {"approval": {}}},
     _at("gate", "the gate requires nothing; add an entry to gate.requirements, or remove gate")),
    ("nothing-to-evaluate-without-holdout", "own", {"evaluation": {"tasks": [], "holdout": False}},
     _at("evaluation.tasks", "evaluation.tasks is empty and evaluation.holdout is false; name a task")),
    ("nothing-to-evaluate-and-none-asked", "own",
     {"dataset": {"trainSplit": 1}, "evaluation": {"enabled": False, "tasks": []}}, {}),
    # Volumes and mounts.
    *(
        (f"volume-named-{name}", "own", _training(volumes=[{"name": name, "emptyDir": {}}]),
         _at("training.volumes[0].name", "belong to the operator; choose another name"))
        for name in ("workspace", "documents", "scratch", "shared-memory", "training-bundle")
    ),
    ("volume-twice", "own", _training(volumes=[_SCRATCH, _SCRATCH]), _at("training.volumes", "names a volume twice; rename")),
    ("mount-twice", "own",
     _training(volumes=[_SCRATCH], volumeMounts=[{"name": "a", "mountPath": "/x"}, {"name": "a", "mountPath": "/x/"}]),
     _at("training.volumeMounts", "two mounts at one mountPath; move or remove one of them")),
    *(
        (f"mount-at-{path!r}", "own", _mount(path), _at("training.volumeMounts[0].mountPath", _HIDES))
        for path in ("/etc/my", "/tmp", "/tmp/", "/workspace", "/workspace/runs", "/etc", "/etc/finetune", "/opt", "/opt/finetune/", "/dev/shm",
                     "/dev/termination-log", "/proc", "/sys/fs")
    ),
    *(
        (f"mount-at-{path!r}", "own", _mount(path), _at("training.volumeMounts[0].mountPath", _UNCLEAN))
        for path in ("//tmp", "/workspace/.", "/tmp/../workspace", "/./tmp", "/data//x", "data", "/a:b", "//", "/..", "/a\0b")
    ),
    *(
        (f"mount-at-{path!r}", "own", _mount(path), {})
        for path in ("/data", "/data/", "/tmp/huggingface", "/workspaces", "/.cache", "/..data", "/a.b/...c")
    ),
    *(
        (f"sub-path-{path}", "own", _mount("/x", subPath=path),
         _at("training.volumeMounts[0].subPath", "subPath leaves the volume; write a relative path without .."))
        for path in ("../../etc", "..", "a/..", "a/../b", "/a")
    ),
    ("sub-path-with-dots-in-a-name", "own", _mount("/x", subPath="a..b/..c"), {}),
    # Quantities and storage.
    ("memory-below-zero", "own", _training(resources={"memory": -5}), _at("training.resources.memory", _QUANTITY)),
    ("cpu-below-zero-as-text", "own", _training(resources={"cpu": "-1"}), _at("training.resources.cpu", _QUANTITY)),
    ("memory-with-another-unit", "own", {"evaluation": {"resources": {"memory": "64GB"}}},
     _at("evaluation.resources.memory", _QUANTITY)),
    ("quantities-of-every-form", "own",
     _training(resources={"cpu": "0.5", "memory": "1e3", "ephemeralStorage": "1Ei"}, sharedMemory="1.5Gi"), {}),
    ("more-quantities", "own", {**_training(resources={"cpu": "100u", "memory": "+2E", "ephemeralStorage": ".5G"}), "storage": {"size": "1e9"}},
     {}),
    ("shared-memory-of-nothing", "own", _training(sharedMemory=0), _at("training.sharedMemory", _SIZE)),
    ("scratch-below-zero", "own", _training(volumes=[{"name": "a", "emptyDir": {"sizeLimit": "-1Gi"}}]),
     _at("training.volumes[0].emptyDir.sizeLimit", _QUANTITY)),
    *(
        (f"storage-of-{size!r}", "own", {"storage": {"size": size}}, _at("storage.size", _SIZE))
        for size in ("0", 0, -1, "-1Gi", "0Gi", "0.0", "much")
    ),
    ("storage-for-one-pod-and-many", "own", {"storage": {"accessModes": ["ReadWriteOncePod", "ReadWriteMany"]}},
     _at("storage.accessModes", "ReadWriteOncePod excludes every other mode; name it alone")),
    ("storage-for-one-pod-and-two-workers", "own",
     {"storage": {"accessModes": ["ReadWriteOncePod"]}, **_training(workers=2)},
     _at("storage.accessModes", "has room for one pod, and training.workers is above 1; choose another access mode")),
    # Batches.
    ("batch-smaller-than-workers", "own", _training(workers=100, effectiveBatchSize=1),
     _at("training.effectiveBatchSize", "cannot be shared evenly by all training processes; use a multiple of training.workers")),
    ("batch-smaller-than-processes", "own", _training(workers=2, processesPerWorker=4, effectiveBatchSize=4),
     _at("training.effectiveBatchSize", "cannot be shared evenly")),
    ("batch-of-workers", "own", _training(workers=5, effectiveBatchSize=12), _at("training.effectiveBatchSize", "cannot be shared evenly")),
    ("batch-that-fits", "own", _training(workers=2, gpusPerWorker=4, effectiveBatchSize=16), {}),
    # Names with spaces.
    *(
        (f"image-{image!r}", "own", _training(image=image), _at("training.image", "is not the name of an image; write <registry>"))
        for image in (
            " x", "x ", "a b", "x\n", "\0", "https://x y", "https://registry.example.com/x:1", "registry.example.com/X:1", "a//b", "a/", "x:", "x@sha256",
        )
    ),
    *(
        (f"image-{image}", "own", _training(image=image), {})
        for image in ("x", "localhost:5000/x", "Registry.example.com/a/b__c-d:1.0_RC", "team/x:1@sha256:abc")
    ),
    ("image-with-digest", "own", _training(image="registry.example.com:5000/a_b/c.d@sha256:abc"), {}),
    ("revision-with-space", "own", {"dataset": {"revision": " main"}}, _at("dataset.revision", "write a branch, tag or commit without spaces")),
    ("model-revision-with-nul", "own", {"model": {"revision": "a\0"}}, _at("model.revision", "write a branch, tag or commit without spaces")),
    ("split-with-space", "own", {"dataset": {"split": "train "}}, _at("dataset.split", "write it without spaces at its ends")),
    ("author-with-space", "own", {"registry": {"author": " me"}}, _at("registry.author", "write it without spaces at its ends")),
    ("variable-with-nul", "own", _training(env=[{"name": "A", "value": "a\0b"}]),
     _at("training.env[0].value", "the value has a control character such as NUL, which no environment variable can have; remove it")),
    # URIs.
    *(
        (f"data-at-{uri!r}", source, {"dataset": {"uri": uri}}, _at("dataset.uri", words))
        for source, uri, words in (
            ("instructlab/instructlab#2257", "rows.jsonl", _FILE), ("own", "data/rows.jsonl", _FILE), ("own", "C:\\data\\rows.jsonl", _FILE),
            ("own", "C:/data/rows.json", _FILE), ("own", "train.PARQUET", _FILE), ("own", "a/b.csv.gz", _FILE), ("own", "rows.json:train", _FILE),
            ("own", "https:///x", _FORM), ("own", "http://:80/x", _FORM), ("own", "https://?x", _FORM), ("own", "s3:///key", _FORM),
            ("own", "hf://", _FORM), ("own", "hf:///x", _FORM), ("own", "file://", _FORM), ("own", "file://rows.jsonl", _FORM),
            ("own", "pvc:///x", _FORM), ("own", "oci://image", _FORM), ("own", "HTTPS://example.com/x", _FORM), ("own", " org/chat", _SPACE),
            ("own", "org/chat ", _SPACE), ("own", " /rows.jsonl", _SPACE), ("own", "./rows.jsonl ", _SPACE),
            ("own", "file:///data/rows.jsonl ", _SPACE), ("own", "file:///data/100%.jsonl", _FORM), ("own", "file:///a%00b", _FORM), ("own", "org/my data", _FORM), ("own", "a/b/c", _FORM), ("own", "org/", _FORM),
            ("own", "-org/chat", _FORM), ("own", "org/chat.", _FORM), ("own", "org/a--b", _FORM), ("own", "org/a..b", _FORM), ("own", ".", _FORM),
            ("own", "~", _FORM), ("own", "org/chat@main", _FORM), ("own", "./rows\0.jsonl", _CONTROL), ("own", "org/chat\n", _CONTROL),
            ("own", "https://example.com/a\tb", _CONTROL), ("own", "\0", _CONTROL), ("own", "https://example.com:123456/x", _FORM), ("own", "https://example.com:65536/x", _FORM), ("own", "http://example.com:0/x", _FORM),
        )
    ),
    *(
        (f"data-at-{uri!r}", "own", {"dataset": {"uri": uri}}, {})
        for uri in ("org/chat", "squad", "LipengCS/Table-GPT:All", "hf://org/rows.jsonl", "org/a_b.c-d", "https://example.com:8443/a?b=c#d",
                    "https://[::1]:80/x", "./my rows.jsonl", "/data/ü.jsonl", "~/rows.jsonl",
                    "file:///data/my rows.jsonl", "file:///data/100%25.jsonl", "https://example.com:65535/x", "s3://bucket/rows.jsonl", "org/a:20220301.en")
    ),
    ("held-out-rows-in-a-file", "own", {"dataset": {"evalUri": "held-out.jsonl"}}, _at("dataset.evalUri", _FILE)),
    ("held-out-rows-without-host", "own", {"dataset": {"evalUri": "https:///x"}}, _at("dataset.evalUri", _FORM)),
    ("held-out-rows-with-nul", "own", {"dataset": {"evalUri": "./a\0"}}, _at("dataset.evalUri", _CONTROL)),
    *(
        (f"model-at-{uri!r}", "own", {"model": {"uri": uri}}, _at("model.uri", words))
        for uri, words in (
            ("model.safetensors", _FILE), ("models/tiny.gguf", _FILE), ("hf://", _FORM), ("a/b/c", _FORM), ("org/model:config", _FORM),
            ("https://example.com/model", _FORM), ("s3:///x", _FORM), ("oci://", _FORM), (" org/model", _SPACE), ("./model ", _SPACE), ("./m\0", _CONTROL),
        )
    ),
    *(
        (f"model-at-{uri!r}", "own", {"model": {"uri": uri}}, {})
        for uri in ("Qwen/Qwen2.5-0.5B-Instruct", "gpt2", "hf://org/model.bin", "./model", "file:///model", "oci://registry.example.com/m:1")
    ),
    ("publish-without-bucket", "own", {"publish": {"uri": "s3:///x"}}, _at("publish.uri", "write s3://<bucket>/<prefix> or oci://<image>")),
    ("endpoint-without-host", "own", {"dataset": {"endpoint": "https:///"}}, _at("dataset.endpoint", "write https://<host>")),
    # Labels, annotations, selectors.
    *(
        (f"label-{key}", "own", _placed(labels={key: "x"}), _at("training.placement.labels", words))
        for key, words in (
            ("finetunerun.io/run", _CONTROLLERS), ("jobset.sigs.k8s.io/jobset-name", _CONTROLLERS),
            ("batch.kubernetes.io/job-name", _CONTROLLERS), ("trainer.kubeflow.org/x", _CONTROLLERS), ("job-name", _CONTROLLERS),
            ("controller-uid", _CONTROLLERS), ("app.kubernetes.io/managed-by", _CONTROLLERS), ("a b", _KEY), ("a/b/c", _KEY), ("/a", _KEY),
            ("A.io/x", _KEY), ("a..b/x", _KEY), ("x" * 64, _KEY), (f"{'a' * 254}/x", _KEY), ("-a", _KEY), ("", _KEY),
        )
    ),
    ("label-FINETUNERUN.io/run", "own", _placed(labels={"FINETUNERUN.io/run": "x"}), _at("training.placement.labels", _CONTROLLERS)),
    ("label-value", "own", _placed(labels={"a": "b c"}), {"spec.training.placement.labels.a": "write a label's value"}),
    ("labels-that-are-fine", "own", _placed(labels={"team": "ml", "example.com/a_b.c": "", "kueue.x-k8s.io/x": "y"}), {}),
    *(
        (f"annotation-{key}", "own", _placed(annotations={key: "x"}), _at("training.placement.annotations", words))
        for key, words in (
            ("a b", _NO_ANNOTATION), ("a/b/c", _NO_ANNOTATION), ("x" * 64, _NO_ANNOTATION), ("JobSet.sigs.k8s.io/x", "belong to controllers"),
            ("finetunerun.io/inputs-digest", "belong to controllers"),
        )
    ),
    ("annotations-that-are-fine", "own", _placed(annotations={"Example.COM/Note": "a b", "sidecar.istio.io/inject": "false"}), {}),
    ("node-selector-key", "own", _placed(nodeSelector={"a b!": "x"}), _at("training.placement.nodeSelector", f"nodeSelector {_KEY}")),
    ("placement-of-evaluation", "own", {"evaluation": {"placement": {"nodeSelector": {"a b!": "x"}}}},
     _at("evaluation.placement.nodeSelector", f"nodeSelector {_KEY}")),
    ("toleration-with-value", "own", _placed(tolerations=[{"key": "a", "operator": "Exists", "value": "b"}]),
     _at("training.placement.tolerations[0].value", "operator Exists takes no value; remove value, or set operator: Equal")),
    ("toleration-with-seconds", "own",
     _placed(tolerations=[{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 3}]),
     _at("training.placement.tolerations[0].tolerationSeconds", "counts only with effect: NoExecute; set that effect")),
    ("toleration-of-nothing", "own", _placed(tolerations=[{}]),
     _at("training.placement.tolerations[0]", "a toleration without key tolerates every taint and needs operator: Exists")),
    ("toleration-key", "own", _placed(tolerations=[{"key": "a b", "operator": "Exists"}]),
     _at("training.placement.tolerations[0].key", "write a label's key")),
    ("toleration-of-everything", "own", _placed(tolerations=[{"operator": "Exists", "value": ""}]), {}),
    ("affinity-exists-with-values", "own", _nodes({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}),
     _at(f"{_TERM}.matchExpressions[0].values", "operators Exists and DoesNotExist take no values; remove values")),
    ("affinity-in-without-values", "own", _nodes({"matchExpressions": [{"key": "a", "operator": "In"}]}),
     _at(f"{_TERM}.matchExpressions[0].values", "operators In and NotIn need values; add values")),
    ("affinity-above-a-word", "own", _nodes({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["x"]}]}),
     _at(f"{_TERM}.matchExpressions[0].values", "operators Gt and Lt need one value that is a whole number; correct values")),
    ("affinity-of-an-empty-term", "own", _nodes({}), _at(_NODES, "an empty term of nodeSelectorTerms matches no node; add")),
    ("affinity-by-another-field", "own", _nodes({"matchFields": [{"key": "spec.x", "operator": "In", "values": ["x"]}]}),
     {**_at(f"{_TERM}.matchFields[0].key", 'supported values: "metadata.name"'), "": "some validation rules were not checked"}),
    ("affinity-by-two-names", "own", _nodes({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["x", "y"]}]}),
     {**_at(f"{_TERM}.matchFields[0].values", "must have at most 1 item"), "": "some validation rules were not checked"}),
    ("affinity-of-preferred-nodes", "own",
     _placed(affinity={"nodeAffinity": {_PREFERRED: [
         {"weight": 1, "preference": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": []}]}}]}}),
     _at(f"training.placement.affinity.nodeAffinity.{_PREFERRED}[0].preference.matchExpressions[0].values", "In and NotIn need values")),
    ("affinity-to-pods-above", "own", _pods({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}),
     {**_at(f"{_POD}.matchExpressions[0].operator", 'supported values: "In", "NotIn"'), "": "some validation rules were not checked"}),
    ("affinity-to-pods-without-values", "own", _pods({"matchExpressions": [{"key": "a", "operator": "In"}]}),
     _at(f"{_POD}.matchExpressions[0].values", "operators In and NotIn need values; add values")),
    ("affinity-to-pods-by-a-bad-key", "own", _pods({"matchLabels": {"a b": "x"}}), _at(f"{_POD}.matchLabels", f"matchLabels {_KEY}")),
    ("secret-key-with-dots", "own", {"dataset": {"secretRef": {"name": "s", "key": ".."}}}, _at("dataset.secretRef.key", "write a key of")),
    # Sections that ask for nothing.
    ("empty-limits", "own", {"limits": {}}, {}),
    ("empty-sections", "own",
     {"model": {}, "training": {"resources": {}, "placement": {"affinity": {}, "labels": {}}, "volumes": [], "env": []},
      "evaluation": {"generation": {}, "modelArgs": {}}, "registry": {}, "storage": {}, "retry": {}, "cleanup": {}}, {}),
)  # fmt: skip

RESOURCES: tuple[Report, ...] = tuple(Report(name, source, given, expected) for name, source, given, expected in _TABLE)
