"""Code that a run brings to this machine, and what is no code."""

from __future__ import annotations

import base64
from typing import Any

import pytest

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
            {"model": {"uri": "a/b", "trustRemoteCode": False}, "training": {"env": [{"name": "A", "value": "b"}]}}, tasks(text)
        )
        == []
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: !function utils.f\nb: !function utils.g", "calls Python functions on this machine (utils.f, utils.g)"),
        ("\n".join(f"a{n}: !function utils.f{n}" for n in range(5)), "calls Python functions on this machine (utils.f0, utils.f1, utils.f2, ...)"),
        ("a: !function\n  utils.f", "calls Python functions on this machine (!function)"),
        *(
            (text, "has a metric that may be a program of a hub, which runs on this machine (metric, hf_evaluate)")
            for text in (
                "metric_list: [{metric: org/luck}]", "- metric:\n    org/luck\n", '- {"metric": "org/luck"}', "- metric: >-\n    org/luck\n",
                "a: &a org/luck\nmetric_list: [{metric: *a}]", "- ? metric\n  : org/luck\n", "- metric: bleu\n  hf_evaluate: true\n",
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


def test_python_files_remote_code_and_variables_of_the_interpreter() -> None:
    spec = {
        **FILES, "model": {"uri": "org/m", "trustRemoteCode": True},
        "training": {"env": [{"name": name} for name in ("LD_PRELOAD", "PYTHONPATH", "PATH", "MY_PATH", "A")]},
    }  # fmt: skip
    binary = {"metadata": {"name": "tasks"}, "data": {"utils.py": "x"}, "binaryData": {"b.pyc": "%", "c.txt": "%"}}
    assert code_of(spec, binary) == [
        "spec.model.trustRemoteCode: runs Python code of the model org/m on this machine; read it, and add --allow-code",
        "spec.training.env: LD_PRELOAD, PYTHONPATH, PATH can make training run other code on this machine; read it, and add --allow-code",
        "spec.evaluation.taskFiles: b.pyc of ConfigMap tasks runs as Python code on this machine; read it, and add --allow-code",
        "spec.evaluation.taskFiles: utils.py of ConfigMap tasks runs as Python code on this machine; read it, and add --allow-code",
    ]
