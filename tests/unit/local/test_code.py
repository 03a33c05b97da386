"""Code that a run brings to this machine, and what is no code."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest

from finetune_operator.api.pods import CODE_VARIABLES
from finetune_operator.cli.code import code_of

FILES = {"evaluation": {"taskFiles": {"name": "tasks"}}}


def tasks(text: str, key: str = "a.yaml") -> dict[str, Any]:
    return {"metadata": {"name": "tasks"}, "data": {key: text}}


@pytest.mark.parametrize(
    "text",
    [
        "task: a\ndoc_to_text: '{{question.strip()}}\\nAnswer:'\n", "doc_to_choice: \"{{['a']}}\"", "doc_to_text: \"{{choices[0]}} {{a['b']}}\"",
        "doc_to_text: '{% if x %}{{x | trim}}{% endif %}'", "task: a\ndoc_to_text: question\n", "",
        "dataset_path: org/data\nmetric_list:\n  - metric: acc\n    aggregation: mean\n  - {metric: exact_match, aggregation: mean}\n",
    ],
)  # fmt: skip
def test_files_without_code(text: str) -> None:
    assert (
        code_of(
            {"model": {"uri": "a/b", "trustRemoteCode": False}, "training": {"env": [{"name": "NCCL_DEBUG", "value": "INFO"}]}},
            tasks(text),
        )
        == []
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: !function utils.f\nb: !function utils.g", "calls Python functions on this machine (utils.f, utils.g)"),
        ("\n".join(f"a{n}: !function utils.f{n}" for n in range(5)), "calls Python functions on this machine (utils.f0, utils.f1, utils.f2, ...)"),
        ("a: !function\n  utils.f", "calls Python functions on this machine (utils.f)"),
        ("a: !fun%63tion os.getcwd", "calls Python functions on this machine (os.getcwd)"),
        ("%TAG !f! !func\n---\na: !f!tion os.getcwd", "calls Python functions on this machine (os.getcwd)"),
        ("a: !!python/name:os.getcwd ''", "calls Python functions on this machine (tag:yaml.org,2002:python/name:os.getcwd)"),
        ("a: [!function 'utils.f', {? !function utils.g : 1}]\nb: ]", "calls Python functions on this machine (utils.f, utils.g)"),
        *(
            (text, "has a metric that may be a program of a hub, which runs on this machine (metric, hf_evaluate)")
            for text in (
                "metric_list: [{metric: org/luck}]", "- metric:\n    org/luck\n", '- {"metric": "org/luck"}', "- metric: >-\n    org/luck\n",
                "a: &a org/luck\nmetric_list: [{metric: *a}]", "- ? metric\n  : org/luck\n", "- metric: bleu\n  hf_evaluate: true\n",
                '"m\\x65tric": org/luck', "metric: evil.py", '- {metric: bleu, "hf_ev\\x61luate": true}', "a: &a metric\n*a : org/luck\n",
            )
        ),
        ("dataset_kwargs: {trust_remote_code: true}", "loads a data set with its Python code on this machine (trust_remote_code)"),
    ],
)  # fmt: skip
def test_task_files_with_code(text: str, sentence: str) -> None:
    expected = [f"spec.evaluation.taskFiles: a.yaml of ConfigMap tasks {sentence}; read it, and add --allow-code"]
    assert code_of(FILES, tasks(text)) == expected
    binary = {"metadata": {"name": "tasks"}, "binaryData": {"a.yaml": base64.b64encode(text.encode()).decode()}}
    assert code_of(FILES, binary) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}", "{{ x|attr('a') }}", r"{{ ''['\x5f\x5fclass\x5f\x5f'] }}", "{{ ''[a] }}", "{{ ''[a][0] }}",
        '{{ "}}" }} __', "{% set x = 1 %}", "{{ x|map(attribute=y) }}", "{{ {'a': x}.b[x] }}", "\\x7b\\x7b ''[a] }}", "{\\\n{ ''[a] }}", "{{ ''['_'~'_class__'] }}",
        "{% if x %}{{ x",
    ],
)  # fmt: skip
def test_a_template_that_may_reach_python(template: str) -> None:
    [sentence] = code_of(FILES, tasks(f'doc_to_text: "{template}"'))
    assert "a.yaml of ConfigMap tasks has a template that can call Python functions on this machine" in sentence


def test_a_file_in_another_encoding_is_read_as_the_parser_reads_it() -> None:
    content = base64.b64encode("a: !function utils.f".encode("utf-16")).decode()
    [sentence] = code_of(FILES, {"metadata": {"name": "tasks"}, "binaryData": {"a.yaml": content}})
    assert "a.yaml of ConfigMap tasks calls Python functions on this machine (utils.f)" in sentence


def test_a_template_behind_escapes_of_yaml() -> None:
    [sentence] = code_of(FILES, tasks('a: "{\\x7b x.\\x5f\\x5fclass\\x5f\\x5f }}"'))
    assert "has a template that can call Python functions on this machine" in sentence


def test_config_maps_as_volumes_of_training() -> None:
    volumes = [{"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "evil"}}]
    assert code_of({"training": {"volumes": volumes}}, None) == [
        "spec.training.volumes: files of ConfigMap evil may be code that training runs on this machine; read it, and add --allow-code"
    ]


def test_no_variable_is_both_reserved_and_harmless() -> None:
    names = [
        "NCCL_DEBUG",
        "NCCL_SOCKET_IFNAME",
        "CUDA_VISIBLE_DEVICES",
        "PYTORCH_CUDA_ALLOC_CONF",
        "OMP_NUM_THREADS",
        "HF_TOKEN",
        "WANDB_MODE",
    ]
    assert code_of({"training": {"env": [{"name": name} for name in names]}}, None) == []
    assert not [name for name in names if re.match(CODE_VARIABLES, name)]


def test_python_files_remote_code_and_variables_of_the_interpreter() -> None:
    spec = {
        **FILES, "model": {"uri": "org/m", "trustRemoteCode": True},
        "training": {"env": [{"name": name} for name in ("LD_PRELOAD", "PYTHONPATH", "MY_PATH", "NCCL_DEBUG", "OPENSSL_CONF")]},
    }  # fmt: skip
    binary = {"metadata": {"name": "tasks"}, "data": {"utils.py": "x"}, "binaryData": {"b.pyc": "%", "c.txt": "%"}}
    assert code_of(spec, binary) == [
        "spec.model.trustRemoteCode: runs Python code of the model org/m on this machine; read it, and add --allow-code",
        "spec.training.env: LD_PRELOAD, PYTHONPATH, MY_PATH, OPENSSL_CONF can make training run other code on this machine; read it, and add --allow-code",
        "spec.evaluation.taskFiles: b.pyc of ConfigMap tasks runs as Python code on this machine; read it, and add --allow-code",
        "spec.evaluation.taskFiles: utils.py of ConfigMap tasks runs as Python code on this machine; read it, and add --allow-code",
    ]
