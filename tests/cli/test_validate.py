"""``finetune validate`` and ``init``: validation without a cluster, with messages that name the remedy."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.workdir import Workdir
from finetune_operator.api.crd import crd
from finetune_operator.cli.documents import DocumentProblem, read_documents
from finetune_operator.cli.init import template
from finetune_operator.cli.validate import validate_files
from finetune_operator.core.paths import leaves
from finetune_operator.core.unsupported import UNSUPPORTED_VALUES, first_unsupported
from finetune_operator.validation import Validator

HEAD = "apiVersion: finetunerun.io/v1alpha1\nkind: FineTuneRun\nmetadata:\n  name: demo\nspec:\n"
SAMPLES = sorted((Path(__file__).parents[2] / "manifests/samples").glob("*.yaml"))


def test_a_good_file_is_called_valid(workdir: Workdir) -> None:
    workdir.write({"dataset": {"uri": "org/data"}})
    result = workdir.finetune("validate", "run.yaml")
    assert (result.code, result.out, result.err) == (0, "run.yaml: demo is valid\n", "")


def test_samples_and_the_example_are_valid(workdir: Workdir) -> None:
    example = Path(__file__).parents[2] / "hack/example/finetunerun.yaml"
    result = workdir.finetune("validate", *map(str, [*SAMPLES, example]))
    assert result.code == 0, result.err
    assert len(result.out.splitlines()) == len(SAMPLES) + 1


BAD = {
    "an unknown field": ("  dataset:\n    uri: a/b\n    subsett: 1\n", 8, "spec.dataset.subsett: unknown field; did you mean subset?"),
    "a wrong type": ("  dataset:\n    uri: a/b\n    subset: many\n", 8, "spec.dataset.subset: Invalid value"),
    "the wrong section for the algorithm": (
        "  dataset: {uri: a/b}\n  training:\n    algorithm: osft\n    sft: {}\n", 9, "training.sft belongs to algorithm sft; remove it",
    ),
    "a bad ratio": ("  dataset: {uri: a/b}\n  training:\n    osft:\n      unfreezeRankRatio: 1.5\n", 9, "less than or equal to 1"),
    "a split of nothing": ("  dataset:\n    uri: a/b\n    trainSplit: 0\n", 8, "greater than 0"),
    "a scheme that is none": ("  dataset:\n    uri: ftp://a/b\n", 7, "has none of the forms of a URI"),
    "a missing field": ("  dataset:\n    split: train\n", 6, "spec.dataset.uri: Required value"),
    "an unknown word": ("  dataset: {uri: a/b}\n  training:\n    algorithm: dpo\n", 8, 'Unsupported value: "dpo"'),
}  # fmt: skip


CONTRADICTIONS = {
    "a split field without splitBy": (
        "  dataset:\n    uri: ./rows.jsonl\n    splitField: topic\n", 8,
        "spec.dataset.splitField: dataset.splitBy is random; remove dataset.splitField, or set dataset.splitBy to stratified or grouped",
    ),
    "the login of another registry": (
        "  dataset: {uri: ./rows.jsonl}\n  model:\n    uri: oci://r.example/m:1\n    secretRef: {name: a}\n", 9,
        "spec.model.secretRef: only the Hub and s3:// have these credentials; name the Secret of the registry in model.pullSecretRef",
    ),
    "a claim beside a local path": (
        "  dataset: {uri: ./rows.jsonl}\n  model:\n    uri: pvc://claim/base\n", 8,
        "spec.model.uri: pvc://claim/base is on a claim of a cluster, which local mode does not mount; use a local path",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "line", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictions_are_found_beside_a_local_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spec: str, line: int, words: str
) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "run.yaml").write_text(HEAD + spec)
    assert validate_files([tmp_path / "run.yaml"]) == 65
    told = capsys.readouterr().err
    assert told.startswith(f"{tmp_path / 'run.yaml'}:{line}: {words}"), told
    (tmp_path / "run.yaml").write_text(HEAD + "  dataset: {uri: ./rows.jsonl}\n  training: {gpusPerWorker: 8}\n")
    assert validate_files([tmp_path / "run.yaml"]) == 0


@pytest.mark.parametrize(("spec", "line", "words"), BAD.values(), ids=BAD)
def test_a_bad_file_is_reported_by_line_and_field(workdir: Workdir, spec: str, line: int, words: str) -> None:
    (workdir.folder / "run.yaml").write_text(HEAD + spec)
    result = workdir.finetune("validate", "run.yaml")
    assert result.code == 65
    assert any(text.startswith(f"run.yaml:{line}: ") and words in text for text in result.err.splitlines()), result.err
    assert "Traceback" not in result.err
    rejected = workdir.finetune("run", "run.yaml")
    assert (rejected.code, rejected.err) == (65, result.err)
    assert not (workdir.folder / ".finetune").exists()


def test_an_unknown_field_comes_with_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text(
        HEAD + "  dataset:\n    uri: a/b\n    fields: {question: q}\n    columns: {}\n  training: {zzzz: 1}\n"
    )
    assert validate_files([tmp_path / "run.yaml"]) == 65
    lines = [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()]
    assert (
        "spec.dataset.fields.question: unknown field; remove it, or use one of: messages, role, content, instruction, input, output, history,"
        " prompt, completion, system, tools, text, inputIds, labels"
    ) in lines
    assert any(line.startswith("spec.dataset.columns: unknown field; remove it, or use one of: uri, evalUri, ") for line in lines)
    assert "spec.training.zzzz: unknown field; remove it" in lines


TYPES = {
    "training: {epochs: '3'}": 'epochs: Invalid value: "3": spec.training.epochs in body must be of type integer: "string"; write a whole number without quotes',
    "training: {learningRate: '1e-5'}": 'must be of type number: "string"; write a number without quotes',
    "training: {liger: 'true'}": 'must be of type boolean: "string"; write true or false without quotes',
    "training: {epochs: true}": 'must be of type integer: "boolean"; write a whole number',
    "model: {revision: 5}": 'must be of type string: "integer"; write it in quotes',
    "model: {revision: true}": 'must be of type string: "boolean"; write it in quotes',
    "model: {revision: [a]}": 'must be of type string: "array"; write a string',
    "evaluation: {tasks: arc_easy}": 'must be of type array: "string"; write a list',
    "training: 5": 'must be of type object: "integer"; write an object',
    "evaluation: {tasks: [null]}": 'spec.evaluation.tasks[0] in body must be of type string: "null"; write a string',
    "evaluation: {modelArgs: {a: null}}": "spec.evaluation.modelArgs.a: is null; use a string, a number, true or false, or remove it",
    "training: {schedulerArgs: {a: null}}": "spec.training.schedulerArgs.a: is null; use a number, or remove it",
    "training: {placement: {labels: {a: null}}}": "spec.training.placement.labels.a: is null; use a string, or remove it",
}  # fmt: skip


@pytest.mark.parametrize(("section", "words"), TYPES.items(), ids=TYPES)
def test_a_value_of_the_wrong_type_is_rejected_with_its_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], section: str, words: str
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"{HEAD}  dataset: {{uri: a/b}}\n  {section}\n")
    assert validate_files([file]) == 65
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith(f"{file}:7: spec.")
    assert first.endswith(words)


_NAME = "must have at most 52 characters, lower-case letters, digits and dashes only, a letter first and a letter or digit last; correct it"
NAMES = {
    "{name: Bad_Name}": f'metadata.name: Invalid value: "Bad_Name": {_NAME}',
    "{name: 9a}": f'metadata.name: Invalid value: "9a": {_NAME}',
    "{name: a-}": f'metadata.name: Invalid value: "a-": {_NAME}',
    "{name: a.b}": f'metadata.name: Invalid value: "a.b": {_NAME}',
    f"{{name: {'a' * 300}}}": f'metadata.name: Invalid value: "{"a" * 300}": {_NAME}',
    "{generateName: Bad_}": f'metadata.generateName: Invalid value: "Bad_": {_NAME}',
    "{generateName: 9-}": f'metadata.generateName: Invalid value: "9-": {_NAME}',
    "{name: demo, labels: {a: null}}": "metadata.labels.a: is null; use a string, or remove it",
    "{name: demo, annotations: {a: null}}": "metadata.annotations.a: is null; use a string, or remove it",
}  # fmt: skip


@pytest.mark.parametrize(("metadata", "sentence"), NAMES.items(), ids=[name[:40] for name in NAMES])
def test_invalid_metadata_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metadata: str, sentence: str
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(HEAD.replace("\n  name: demo", f" {metadata}") + "  dataset: {uri: a/b}\n")
    assert validate_files([file]) == 65
    assert capsys.readouterr().err == f"{file}:3: {sentence}\n"


def test_an_invalid_name_does_not_hide_other_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(HEAD.replace("demo", "Bad") + "  dataset: {uri: a/b, split: ''}\n")
    assert validate_files([file]) == 65
    assert [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()] == ["metadata.name", "spec.dataset.split"]


def test_a_byte_order_mark_and_tags_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("\ufeff" + HEAD + "  dataset: {uri: !!str a/b, split: !!str 5}\n", encoding="utf-8")
    assert (validate_files([file]), capsys.readouterr().out) == (0, f"{file}: demo is valid\n")
    file.write_text(HEAD + "  dataset: {uri: a/b}\n  training: {epochs: !vault 3}\n")
    assert (validate_files([file]), capsys.readouterr().err) == (
        65,
        f"{file}:7: the tag !vault is not supported here; remove the tag\n",
    )


def test_a_generated_name_is_valid_and_makes_a_new_run_each_time(workdir: Workdir) -> None:
    workdir.write({"dataset": {"uri": "org/data"}, "training": {"gpusPerWorker": 64}})
    file = workdir.folder / "run.yaml"
    file.write_text(file.read_text().replace("name: demo", "generateName: demo-"))
    result = workdir.finetune("validate", "run.yaml")
    assert (result.code, result.out, result.err) == (0, "run.yaml: demo-* is valid\n", "")
    for _ in range(2):
        rejected = workdir.finetune("run", "run.yaml", "--plain")
        assert (rejected.code, "NotPossibleHere" in rejected.out) == (65, True), rejected.out
        assert re.fullmatch(r"demo-[a-z0-9]{5}: name generated from metadata.generateName\n", rejected.err)
    runs = workdir.finetune("get", "-o", "json").object["items"]
    names = {run["metadata"]["name"] for run in runs}
    assert len(names) == 2
    assert all(re.fullmatch(r"demo-[a-z0-9]{5}", name) for name in names)


def test_a_file_without_its_dot_is_reported_before_anything_starts(workdir: Workdir) -> None:
    (workdir.folder / "rows.jsonl").write_text("{}\n")
    workdir.write({"dataset": {"uri": "rows.jsonl"}})
    words = (
        "rows.jsonl means a hub ID, but the directory of run.yaml has a file of this name;"
        " write ./rows.jsonl for the file or hf://rows.jsonl for the hub"
    )
    for command in ("validate", "run"):
        result = workdir.finetune(command, "run.yaml")
        assert (result.code, result.err) == (65, f"run.yaml:7: spec.dataset.uri: {words}\n")
    assert not (workdir.folder / ".finetune").exists()


def test_all_problems_of_all_files_are_reported(workdir: Workdir) -> None:
    workdir.write({"dataset": {"uri": "a/b", "x": 1, "y": 2}}, file="a.yaml")
    workdir.write({"dataset": {"uri": "a/b", "z": 2}}, file="b.yaml")
    result = workdir.finetune("validate", "a.yaml", "b.yaml", "missing.yaml")
    assert [text.split(":")[0] for text in result.err.splitlines()] == ["a.yaml", "a.yaml", "b.yaml", "missing.yaml"]
    assert result.code == 66


BROKEN = {
    "no YAML": ("a: [1, 2\n", r"run.yaml:2: not YAML: "),
    "a list": ("- 1\n", r"run.yaml:1: not an object; "),
    "nothing": ("# only a comment\n", r"run.yaml: contains no object"),
    "a key twice": ("a: 1\nb: 2\na: 3\n", r"run.yaml:3: the key a occurs twice"),
    "a tab": ("a:\n\tb: 1\n", r"run.yaml:2: not YAML: "),
}  # fmt: skip


@pytest.mark.parametrize(("text", "words"), BROKEN.values(), ids=BROKEN)
def test_a_document_that_is_not_an_object_is_reported_by_line(workdir: Workdir, text: str, words: str) -> None:
    (workdir.folder / "run.yaml").write_text(text)
    result = workdir.finetune("validate", "run.yaml")
    assert result.code == 65
    assert re.match(words, result.err), result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kind: A\nspec: &a\n  x: [*a]\n", ":3: the alias *a is inside its own value; write the value"),
        (
            "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)),
            ":1: has more than 100000 values; remove what is not needed",
        ),
        ("a: " + "[" * 200_000, ":1: is nested in more than 100 levels; remove levels"),
        ("#" * (3 * 2**20 + 1), ": has more than 3,145,728 bytes; remove what is not needed"),
    ],
    ids=["alias of itself", "aliases that expand", "nesting", "size"],
)
def test_a_file_that_would_take_all_memory_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, sentence: str
) -> None:
    file = tmp_path / "bomb.yaml"
    file.write_text(text)
    started = time.thread_time()
    assert validate_files([file]) == 65
    assert time.thread_time() - started < 20
    assert capsys.readouterr().err == f"{file}{sentence}\n"


def test_a_file_without_an_end_is_not_read_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert validate_files([Path("/dev/zero")]) == 65
    assert capsys.readouterr().err == "/dev/zero: has more than 3,145,728 bytes; remove what is not needed\n"


def test_scalars_are_those_of_kubernetes(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        textwrap.dedent("""
        rate: 5e-6
        plain: 5
        quoted: "5"
        time: 1:30
        day: 2026-11-21
        yes: on
        octal: 010
        hex: 0x10
        big: 1_000
        none: ~
        text: |
          5
        version: 1.0.0
    """)
    )
    (document,) = read_documents(path)
    assert document.content == {
        "rate": 5e-6, "plain": 5, "quoted": "5", "time": "1:30", "day": "2026-11-21", "yes": True, "octal": 8, "hex": 16, "big": 1000,
        "none": None, "text": "5\n", "version": "1.0.0",
    }  # fmt: skip
    assert document.line_of("rate") == 2
    assert document.line_of("rate.something[3].deeper") == 2
    assert document.line_of("elsewhere") == 2


def test_a_file_that_is_not_text_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DocumentProblem, match="cannot be read"):
        read_documents(path)


@pytest.mark.parametrize("full", [False, True], ids=["usual", "full"])
@pytest.mark.parametrize("algorithm", ["sft", "osft", "lora"])
def test_a_template_is_valid_and_so_is_every_line_that_it_offers(algorithm: str, full: bool) -> None:
    validator = Validator(crd())
    text = template(algorithm, full=full)
    assert validator.create(yaml.safe_load(text)) == []
    whole = _with_all_lines(text)
    paths = set(_paths(whole["spec"]))
    for entry in UNSUPPORTED_VALUES:
        if entry.values == "any value":
            assert not {path for path in paths if path == entry.path or path.startswith(f"{entry.path}.")}
    document = _without_nothing(whole)
    assert first_unsupported(document["spec"]) is None
    assert document["spec"]["training"]["algorithm"] == algorithm
    assert len(list(leaves(document["spec"]))) > (40 if full else 15)
    if full:  # the port is offered with its default, and means nothing without an address
        document["spec"]["registry"]["address"] = "registry.example.com"
    assert validator.create(document) == []


def _with_all_lines(text: str) -> dict[str, Any]:
    """The template with every field that it offers in a comment."""
    found: dict[str, Any] = yaml.safe_load(
        re.sub(r"^( *)# (?!Default)([A-Za-z]\w*:( [^ ].*)?)$", r"\1\2", text, flags=re.MULTILINE)
    )
    return found


def _paths(value: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, item in value.items():
        yield prefix + name
        if isinstance(item, dict):
            yield from _paths(item, f"{prefix}{name}.")


@pytest.mark.parametrize("path", ["training.enabled", "training.checkpoints.final", "retry.outOfMemory", "cleanup.volume"])
def test_a_field_with_one_supported_value_is_not_offered(path: str) -> None:
    offered = set(_paths(_with_all_lines(template("osft", full=True))["spec"]))
    assert path.rpartition(".")[0] in offered
    assert path not in offered


def test_a_section_is_described_before_its_fields() -> None:
    text = " ".join(line.strip("# ") for line in template("osft", full=True).splitlines())
    node = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    for section, field in (("dataset", "secretRef"), ("dataset", "caRef"), ("model", "pullSecretRef"), ("registry", "secretRef")):
        description = node[section]["properties"][field]["description"]
        assert f"{' '.join(description.split())} {field}: Name of the" in text


def test_unsupported_values_of_an_offered_field_are_listed() -> None:
    text = " ".join(line.strip("# ") for line in template("osft", full=True).splitlines())
    assert "Not supported in this release: vllm." in text


def _without_nothing(value: Any) -> Any:
    """A document without the fields that are offered without a value."""
    if not isinstance(value, dict):
        return value
    kept = {key: _without_nothing(item) for key, item in value.items()}
    return {key: item for key, item in kept.items() if item is not None and item != {}}


def test_init_writes_a_file_once(workdir: Workdir) -> None:
    result = workdir.finetune("init", "--algorithm", "sft")
    assert (result.code, (workdir.folder / "finetunerun.yaml").exists()) == (0, True)
    assert "finetune run finetunerun.yaml" in result.out
    assert workdir.finetune("validate", "finetunerun.yaml").code == 0
    again = workdir.finetune("init")
    assert again.code == 65
    assert again.err == "finetunerun.yaml: the file exists; choose another name, or overwrite it with --force.\n"
    assert workdir.finetune("init", "--force").code == 0
    assert workdir.finetune("init", "-").out.startswith("apiVersion: finetunerun.io/v1alpha1\n")
    assert "cannot be written" in workdir.finetune("init", "no/such/folder/x.yaml").err


def test_help_and_mistakes_on_the_command_line(workdir: Workdir) -> None:
    result = workdir.finetune("--help")
    assert result.code == 0
    for command in ("init", "validate", "run", "get", "describe", "logs", "delete"):
        assert f"\n  {command} " in result.out
    assert workdir.finetune("runn").code == 2
    assert "No such command" in workdir.finetune("runn").err
    assert workdir.finetune("get", "--output", "xml").code == 2


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("  storage: {size: 50GB}\n", 'spec.storage.size: Invalid value: "50GB": not a quantity above 0; write '),
        ("  training: {volumeMounts: [{name: a, mountPath: /tmp}]}\n", "spec.training.volumeMounts[0].mountPath: "),
        (
            "  training: {placement: {labels: {'a b': c}}}\n",
            "spec.training.placement.labels: labels has a key that is not a label's key; ",
        ),
    ],
)
def test_a_message_shows_the_value_and_not_its_type(workdir: Workdir, spec: str, line: str) -> None:
    (workdir.folder / "run.yaml").write_text(f"{HEAD}  dataset: {{uri: org/data}}\n{spec}")
    result = workdir.finetune("validate", "run.yaml")
    assert result.code == 65
    assert line in result.err
    assert "object" not in result.err
    assert 'value: ""' not in result.err


DEFAULTS_HEAD = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: finetune-defaults\n"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("data:\n  spec.yaml: |\n    training: {env: [{name: A}]}\n",
         "defaults.yaml:6: ConfigMap finetune-defaults, training.env[0]: an entry of env needs exactly one of value and valueFrom\n"),
        ("data:\n  spec.yaml: |\n    limits: {total: 1h}\n",
         "defaults.yaml:6: ConfigMap finetune-defaults, limits: this release does not support this field; remove it\n"),
        ("data:\n  spec.yaml:\n    training: {epochs: 2}\n",
         "defaults.yaml:6: ConfigMap finetune-defaults, key spec.yaml: not a string; write the YAML after |\n"),
    ],
)  # fmt: skip
def test_faulty_defaults_of_a_namespace(workdir: Workdir, data: str, sentence: str) -> None:
    (workdir.folder / "defaults.yaml").write_text(DEFAULTS_HEAD + data)
    result = workdir.finetune("validate", "defaults.yaml")
    assert (result.code, result.out, result.err) == (65, "", sentence)


def test_good_defaults_of_a_namespace(workdir: Workdir) -> None:
    sample = Path(__file__).parents[2] / "manifests/samples/platform/finetune-defaults.yaml"
    result = workdir.finetune("validate", str(sample))
    assert (result.code, result.out, result.err) == (0, f"{sample}: finetune-defaults is valid\n", "")


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ("{engine: training-hub, algorithm: lora}", "engine: training-hub is not possible here, because engine training-hub does not train lora; remove it"),
        ("{engine: training-hub, microBatchSize: 4}", "microBatchSize: 4 is not possible here, because the backends of training-hub fill each micro-batch up to training.maxTokensPerGPU; remove it"),
        ("{algorithm: lora, liger: true}", "liger: true is not possible here, because the portable engine does not use Liger kernels; remove it"),
    ],
)  # fmt: skip
def test_what_no_place_can_train_is_invalid(workdir: Workdir, training: str, sentence: str) -> None:
    (workdir.folder / "run.yaml").write_text(
        f"apiVersion: finetunerun.io/v1alpha1\nkind: FineTuneRun\nmetadata: {{name: a}}\nspec:\n  dataset: {{uri: org/data}}\n  training: {training}\n"
    )
    result = workdir.finetune("validate", "run.yaml")
    assert (result.code, result.err) == (65, f"run.yaml:6: spec.training.{sentence}\n")
