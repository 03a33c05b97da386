"""The program of stages *evaluation* and *baseline*, run as its container runs it."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pydocs
from finetune_contract import progress
from finetune_contract.documents import EvaluationInputs
from finetune_stages.sdk import read_seal, seal_directory
from hub import Hub

from .conftest import CITIES, chat_rows, prepare, render

BASELINE = [sys.executable, "-m", "finetune_stages.evaluation"]


@pytest.fixture
def programs(run_stage_program: Any, tiny_model: Path) -> Any:
    """A workspace with everything in it, and the programs."""
    prepare(run_stage_program.workspace, run_stage_program.layout.root, tiny_model)
    return run_stage_program


def results(programs: Any, name: str) -> Path:
    return programs.path(f"{programs.layout.root}/results/{name}")


def expected_holdout(model: Path, rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Bits per byte and nats per token by the definition, answer by answer, with transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    nats, size, tokens = 0.0, 0, 0
    for row in rows:
        for number, message in enumerate(row["messages"]):
            if message["role"] != "assistant":
                continue
            before = tokenizer.apply_chat_template(row["messages"][:number], tokenize=False, add_generation_prompt=True)
            context, answer = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, message["content"]))
            with torch.no_grad():
                logits = network(torch.tensor([context + answer])).logits[0].double().log_softmax(-1)
            nats -= sum(float(logits[len(context) + place - 1, token]) for place, token in enumerate(answer))
            size, tokens = size + len(message["content"].encode()), tokens + len(answer)
    return nats / math.log(2) / size, nats / tokens


def test_holdout_and_own_tasks_are_measured(programs: Any) -> None:
    inputs = EvaluationInputs("final", tasks=("quizzes", "say", "guess", "recite"))
    ended = programs("evaluation", inputs)
    assert ended.code == 0, ended.errors
    metrics = ended.result.metrics
    bits, nats = expected_holdout(programs.path(programs.layout.final_model), chat_rows(12))
    assert metrics["holdout.bits_per_byte"] == pytest.approx(bits, rel=1e-4)
    assert metrics["holdout.loss"] == pytest.approx(nats, rel=1e-4)
    assert 0 < metrics["holdout.bits_per_byte_stderr"] < bits
    assert set(metrics) == {
        "seconds", "holdout.bits_per_byte", "holdout.bits_per_byte_stderr", "holdout.loss", "holdout.loss_stderr",
        "recite.bits_per_byte", "recite.byte_perplexity", "recite.word_perplexity", "guess.perplexity", "guess.perplexity_stderr",
        "capitals.acc", "capitals.acc_stderr", "quizzes.acc", "quizzes.acc_stderr",
        "say.exact_match.whole", "say.exact_match.whole_stderr", "say.exact_match.first-word", "say.exact_match.first-word_stderr",
    }  # fmt: skip
    outputs = ended.result.outputs
    assert outputs["tasks"] == ["holdout", "quizzes", "say", "guess", "recite"]
    assert outputs["evalRows"] == 12
    assert outputs["modelDigest"] == read_seal(programs.path(programs.layout.final_model)).digest
    assert outputs["higherIsBetter"]["holdout.bits_per_byte"] is False
    assert outputs["higherIsBetter"]["quizzes.acc"] is True
    assert outputs["higherIsBetter"]["say.exact_match.first-word"] is True

    whole = json.loads(results(programs, "lm-eval-evaluation.json").read_text())
    assert whole["results"]["capitals"]["acc,none"] == metrics["capitals.acc"]
    assert "samples" not in whole
    samples = [json.loads(line) for line in results(programs, "samples-evaluation.capitals.jsonl").read_text().splitlines()]
    assert [sample["doc"]["answer"] for sample in samples] == list(range(len(CITIES)))
    assert "<|im_start|>user\nWhich city is number 0?<|im_end|>" in json.dumps(samples[0]["arguments"]).replace("\\n", "\n")
    assert len(results(programs, "samples-evaluation.holdout.jsonl").read_text().splitlines()) == 12

    seen = [progress.last(line) for line in ended.output.splitlines() if progress.MARK in line]
    assert seen[-1].total_steps == 12 + 36 + 6 + 6 + 6
    assert [point.percent for point in seen] == sorted(point.percent for point in seen)


def test_chat_rows_among_the_task_files_are_measured_as_the_held_out_ones_are(programs: Any) -> None:
    pydocs.write_jsonl((programs.task_files / "manners.jsonl"), chat_rows(5))
    render(programs.workspace, programs.layout.root, chat_rows(12), tasks=("manners", "capitals"))
    ended = programs("evaluation", EvaluationInputs("final", tasks=("manners", "capitals"), limit=5))
    assert ended.code == 0, ended.errors
    metrics, outputs = ended.result.metrics, ended.result.outputs
    for task, rows in (("manners", chat_rows(5)), ("holdout", chat_rows(12)[:5])):
        bits, nats = expected_holdout(programs.path(programs.layout.final_model), rows)
        assert metrics[f"{task}.bits_per_byte"] == pytest.approx(bits, rel=1e-4)
        assert metrics[f"{task}.loss"] == pytest.approx(nats, rel=1e-4)
        assert outputs["higherIsBetter"][f"{task}.bits_per_byte"] is False
    assert 0 < metrics["manners.bits_per_byte_stderr"] < metrics["manners.bits_per_byte"]
    assert metrics["capitals.acc"] >= 0, "a YAML file that defines the name comes before rows of that name"
    assert outputs["tasks"] == ["holdout", "manners", "capitals"]
    assert outputs["evalRows"] == 5
    assert len(results(programs, "samples-evaluation.manners.jsonl").read_text().splitlines()) == 5


def test_a_second_start_repeats_and_a_changed_model_is_measured_again(programs: Any) -> None:
    inputs = EvaluationInputs("base", log_samples=False)
    first = programs("baseline", inputs, command=BASELINE)
    assert first.code == 0, first.errors
    assert not list(results(programs, "").glob("samples-*"))
    again = programs("baseline", inputs, command=BASELINE, attempt="1.2")
    assert (again.code, again.result.metrics) == (0, first.result.metrics)
    assert "nothing to do" in again.output
    model = programs.path(programs.layout.base_model)
    shutil.copy(model / "README.md", model / "NOTES.md")
    seal_directory(model)
    third = programs("baseline", inputs, command=BASELINE, attempt="1.3")
    assert third.code == 0
    assert "nothing to do" not in third.output
    assert third.result.metrics["holdout.bits_per_byte"] == first.result.metrics["holdout.bits_per_byte"]
    assert third.result.outputs["modelDigest"] != first.result.outputs["modelDigest"]


def test_another_run_of_the_volume_takes_over_the_baseline(programs: Any) -> None:
    inputs = EvaluationInputs("base")
    first = programs("baseline", inputs, command=BASELINE)
    assert (first.code, first.result.reused) == (0, False), first.errors
    mine = programs.path(programs.layout.root)
    programs.run = replace(programs.run, uid="fedcba9876543210")
    theirs = programs.path(programs.layout.root)
    shutil.copytree(mine, theirs, ignore=shutil.ignore_patterns("results", "attempts", "logs"))
    second = programs("baseline", inputs, command=BASELINE)
    assert (second.code, second.result.reused) == (0, True), second.errors
    assert "loading lm-eval" not in second.output
    assert second.result.outputs == first.result.outputs
    assert {**second.result.metrics, "seconds": 0} == {**first.result.metrics, "seconds": 0}
    names = {"lm-eval-baseline.json", "samples-baseline.holdout.jsonl"}
    for name in names:
        assert results(programs, name).read_bytes() == (mine / "results" / name).read_bytes()
    render(programs.workspace, programs.layout.root, chat_rows(13))
    third = programs("baseline", inputs, command=BASELINE, attempt="2.1")
    assert (third.code, third.result.reused, third.result.outputs["evalRows"]) == (0, False, 13)
    assert {file.name for file in (mine / "results").iterdir()} > names
    assert not list(mine.glob("attempts/baseline/*/*"))


def test_limit_fewshot_and_generation_are_honored(programs: Any) -> None:
    inputs = EvaluationInputs(
        "final", tasks=("capitals", "say"), limit=2, fewshot=1, batch_size=1, system_instruction="You know cities.",
        generation={"max_gen_toks": 3, "temperature": 0.0, "do_sample": False}, until=("X",),
    )  # fmt: skip
    ended = programs("evaluation", inputs)
    assert ended.code == 0, ended.errors
    assert ended.result.outputs["evalRows"] == 2
    whole = json.loads(results(programs, "lm-eval-evaluation.json").read_text())
    assert whole["n-samples"]["capitals"] == {"original": 6, "effective": 2}
    assert whole["n-shot"]["capitals"] == 1
    (_, sample), *_ = enumerate(map(json.loads, results(programs, "samples-evaluation.say.jsonl").read_text().splitlines()))
    prompt, generation = sample["arguments"][0]
    assert prompt.startswith("<|im_start|>system\nYou know cities.<|im_end|>")
    assert (generation["max_gen_toks"], generation["until"]) == (3, ["X"])


def test_a_conversation_longer_than_the_model_is_read_in_windows(programs: Any) -> None:
    whole = programs("evaluation", EvaluationInputs("final"))
    parts = programs("evaluation", EvaluationInputs("final", model_args={"max_length": 64}))
    assert (whole.code, parts.code) == (0, 0)
    metrics, cut = whole.result.metrics, parts.result.metrics
    assert cut["holdout.loss"] == pytest.approx(metrics["holdout.loss"], rel=0.1)
    assert cut["holdout.loss"] != metrics["holdout.loss"]
    # every token is scored in both: the two measures have the same ratio of tokens to bytes
    ratio, other = (one["holdout.loss"] / one["holdout.bits_per_byte"] for one in (metrics, cut))
    assert ratio == pytest.approx(other, rel=1e-6)


def test_a_builtin_task_is_read_from_the_hub(programs: Any, hub: Hub) -> None:
    rows = [
        {
            "id": str(n), "question": f"What is number {n}?", "answerKey": "AB"[n % 2],
            "choices": {"text": ["one", "two"], "label": ["A", "B"]},
        }
        for n in range(4)
    ]  # fmt: skip
    splits = ("train", "validation", "test")
    files = {f"{split}.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode() for split in splits}
    data_files = "".join(f"  - {{split: {split}, path: {split}.jsonl}}\n" for split in splits)
    files["README.md"] = f"---\nconfigs:\n- config_name: ARC-Easy\n  data_files:\n{data_files}---\n".encode()
    hub.add("dataset", "allenai/ai2_arc", files)
    inputs = EvaluationInputs("final", tasks=("arc_easy",), holdout=False)
    ended = programs("evaluation", inputs, environment={"HF_ENDPOINT": hub.url})
    assert ended.code == 0, ended.errors
    assert {"arc_easy.acc", "arc_easy.acc_norm", "arc_easy.acc_stderr"} <= set(ended.result.metrics)
    assert ended.result.outputs["tasks"] == ["arc_easy"]


def test_a_builtin_group_and_a_mounted_one_without_a_held_out_row(programs: Any, hub: Hub, tmp_path: Path) -> None:
    """Groups by name, lm-eval's own and that of a ConfigMap; model arguments; that nothing is held out is no fault here."""
    rows = [
        {"premise": f"p{n}", "choice1": "a", "choice2": "b", "question": ("cause", "effect")[n % 2], "label": n % 2} for n in range(4)
    ]  # fmt: skip
    files = {f"{split}.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode() for split in ("validation", "test")}
    data_files = "".join(f"  - {{split: {split}, path: {split}.jsonl}}\n" for split in ("validation", "test"))
    files["README.md"] = f"---\nconfigs:\n- config_name: copa_ext_ar\n  data_files:\n{data_files}---\n".encode()
    hub.add("dataset", "arcee-globe/AlGhafa-Arabic-LLM-Benchmark-Translated-10percent", files)
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    text = (programs.task_files / "capitals.yaml").read_text().replace("task: capitals", "task: towns")
    (mounted / "towns.yaml").write_text(text)
    shutil.copy(programs.task_files / "capitals.jsonl", mounted)
    (mounted / "places.yaml").write_text(
        "group: places\ntask: [towns]\naggregate_metric_list: [{metric: acc, aggregation: mean, weight_by_size: true}]\n"
    )
    render(programs.workspace, programs.layout.root, [])
    group = "arabic_leaderboard_arabic_mt_copa_light"
    inputs = EvaluationInputs(
        "final", tasks=(group, "places"), task_files=True, limit=3, model_args={"dtype": "bfloat16", "max_length": 256}
    )
    ended = programs("evaluation", inputs, environment={"HF_ENDPOINT": hub.url, "FINETUNE_TASK_FILES": str(mounted)})
    assert ended.code == 0, ended.errors
    outputs, metrics = ended.result.outputs, ended.result.metrics
    assert (outputs["tasks"], outputs["evalRows"]) == ([group, "places"], 0)
    for name in (group, "arabic_mt_copa_light", "places", "towns"):
        assert 0 <= metrics[f"{name}.acc"] <= 1
        assert metrics[f"{name}.acc_stderr"] >= 0
        assert outputs["higherIsBetter"][f"{name}.acc"] is True
    whole = json.loads(results(programs, "lm-eval-evaluation.json").read_text())
    assert whole["n-samples"]["towns"] == {"original": 6, "effective": 3}
    assert whole["config"]["model_dtype"] == "torch.bfloat16"


def test_closed_data_states_what_opens_it(programs: Any, hub: Hub) -> None:
    hub.add("dataset", "allenai/ai2_arc", {"train.jsonl": b"{}\n"}, gated=True)
    secret = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_not_this_one"}
    ended = programs("evaluation", EvaluationInputs("final", tasks=("arc_easy",)), environment=secret)
    assert (ended.code, ended.reason) == (65, "TaskInvalid"), ended.errors
    assert "does not accept the token in HF_TOKEN; renew it" in ended.result.message
    assert "hf_not_this_one" not in ended.output + ended.errors + ended.message


@pytest.mark.parametrize(
    ("inputs", "spoil", "reason", "words"),
    [
        (EvaluationInputs("final"), lambda p: shutil.rmtree(p.path(p.layout.final_model)), "ModelNotFound", "there is no model; rerun the stage that writes it"),
        (EvaluationInputs("base"), lambda p: (p.path(p.layout.base_model) / ".finetune.json").unlink(), "ModelIncomplete", "the model is incomplete; rerun"),
        (EvaluationInputs("final", tasks=("arc_esy",)), None, "TaskNotFound", "did you mean arc_easy"),
        (EvaluationInputs("final", tasks=("holdout",)), None, "TaskInvalid", "rename your task or group"),
        (EvaluationInputs("final", tasks=("say",), task_files=True), lambda p: shutil.rmtree(p.task_files), "TaskNotFound", "FINETUNE_TASK_FILES"),
        (EvaluationInputs("final", holdout=False), None, "NothingToEvaluate", "set a task, or hold rows out"),
        (EvaluationInputs("final"), lambda p: render(p.workspace, p.layout.root, []), "NothingToEvaluate", "no held-out row can be measured"),
        (EvaluationInputs("final"), lambda p: shutil.rmtree(p.path(p.layout.tokens)), "DatasetNotFound", "tokens: it is not in the workspace"),
        (EvaluationInputs("final"), lambda p: p.path(p.layout.passages("holdout")).write_text("{"), "DatasetUnreadable", "cannot be read"),
        (EvaluationInputs("final", tasks=("manners",)), None, "TaskNotFound", "evaluation.tasks: lm-eval has no task, group or tag 'manners'"),
        (
            EvaluationInputs("final", tasks=("say",)),
            lambda p: (p.task_files / "say.yaml").write_text("task: say\ndoc: [\n"),
            "TaskInvalid",
            "say.yaml",
        ),
    ],
    ids=[
        "no model", "unsealed model", "unknown task", "task named holdout", "task files not mounted", "nothing at all", "no row",
        "no rendered row", "damaged row", "task that was not rendered", "bad yaml",
    ],
)  # fmt: skip
def test_a_wrong_value_is_reported_before_anything_large_is_imported(
    programs: Any, inputs: EvaluationInputs, spoil: Callable[[Any], object] | None, reason: str, words: str
) -> None:
    if spoil:
        spoil(programs)
    ended = programs("evaluation", inputs)
    assert (ended.code, ended.reason) == (65, reason)
    assert words in ended.result.message
    assert "Traceback" not in ended.output + ended.errors
    assert "loading lm-eval" not in ended.output
    assert not results(programs, "").exists()


@pytest.mark.parametrize(
    ("inputs", "spoil", "reason", "words"),
    [
        (EvaluationInputs("final", tasks=("broken_score",), holdout=False), None, "ScoreNotANumber", "broken_score.luck is nan"),
        (
            EvaluationInputs("final", tasks=("say",), fewshot=9, holdout=False),
            None,
            "BadEvaluationValue",
            "9 is too large for task say",
        ),
        (
            EvaluationInputs("final", tasks=("say",), generation={"max_gen_toks": 4096}),
            None,
            "BadEvaluationValue",
            "task say generates up to 4096 tokens, and the model's context has 512",
        ),
        (
            EvaluationInputs("final", tasks=("guess",), holdout=False),
            lambda p: (p.task_files / "guess.yaml").write_text(
                (p.task_files / "guess.yaml").read_text().replace("choices[answer]", "question * 99")
            ),
            "TaskInvalid",
            "an answer in guess is empty, or longer than the model's 512 tokens",
        ),
        (EvaluationInputs("final", tasks=("say",), generation={"warmth": 3}), None, "BadEvaluationValue", "warmth"),
    ],
    ids=[
        "score is nan",
        "more examples than rows",
        "answers too long",
        "an answer too long to ask about",
        "unknown generation value",
    ],
)
def test_what_only_the_libraries_can_find_is_one_sentence_too(
    programs: Any, inputs: EvaluationInputs, spoil: Callable[[Any], object] | None, reason: str, words: str
) -> None:
    if spoil:
        spoil(programs)
    ended = programs("evaluation", inputs)
    assert (ended.code, ended.reason) == (65, reason), ended.errors
    assert words in ended.result.message
    assert "Traceback" not in ended.output + ended.errors
    assert not results(programs, "").exists()


def test_a_hub_that_does_not_answer_is_retried_later(programs: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        ended = programs("evaluation", EvaluationInputs("final", tasks=("arc_easy",)), environment={"HF_ENDPOINT": address})
    assert (ended.code, ended.reason) == (75, "TaskDataUnreachable")
    assert ended.result.message.startswith("Data of task arc_easy (")
    assert "allenai/ai2_arc" in ended.result.message
    assert "Traceback" not in ended.output + ended.errors


@pytest.mark.parametrize("deadly", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_killed_in_the_middle_nothing_is_left_and_the_next_attempt_finishes(programs: Any, deadly: signal.Signals) -> None:
    held_out = programs.path(programs.layout.passages("holdout"))
    few = held_out.read_bytes()
    held_out.write_bytes(few * 1000)
    inputs = EvaluationInputs("final")
    running = programs.start("evaluation", inputs)
    wait_for_work(running.process.stdout)
    os.kill(running.process.pid, deadly)
    ended = running.wait()
    if deadly is signal.SIGTERM:
        assert (ended.code, ended.reason) == (143, "Interrupted")
    assert not results(programs, "").exists()
    held_out.write_bytes(few)
    assert programs("evaluation", inputs, attempt="1.2").code == 0


def wait_for_work(lines: Any) -> None:
    """Read the program's progress until it answers questions."""
    deadline = time.monotonic() + 120
    for line in lines:
        found = progress.last(line)
        if found is not None and found.step:
            return
        assert time.monotonic() < deadline
    raise AssertionError("the program ended before it answered a question")
