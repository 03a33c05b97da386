"""Finding the definitions of tasks by the text of their files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_stages.sdk import StageError
from finetune_stages.sources.task_files import TaskFiles, builtin_tasks


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def names(files: TaskFiles, *asked: str) -> list[str]:
    return sorted(path.path.stem for path in files.find(asked))


def test_finds_what_lm_evals_own_index_finds() -> None:
    program = (
        "import json, sys; from lm_eval.tasks._index import TaskIndex; from pathlib import Path;"
        "index = TaskIndex.build([Path(sys.argv[1])]);"
        "print(json.dumps({name: [entry.kind.name, str(entry.yaml_path), sorted(entry.tags)] for name, entry in index.items()}))"
    )
    root = builtin_tasks()
    done = subprocess.run([sys.executable, "-c", program, str(root)], capture_output=True, text=True, check=True)
    index = json.loads(done.stdout.splitlines()[-1])
    files = TaskFiles([root])
    tags = {name: members for name, (kind, _, members) in index.items() if kind == "TAG"}
    assert len(index) > 10_000
    assert len(tags) > 500
    assert files._named == {name: Path(path) for name, (kind, path, _) in index.items() if kind != "TAG"}
    for name in sorted(tags)[::10]:
        assert sorted(found.config["task"] for found in files.find([name])) == tags[name], name


@pytest.mark.parametrize(
    ("asked", "found"),
    [("arc_easy", 1), ("ai2_arc", 2), ("mmlu", 62), ("openllm", 70)],
    ids=["task", "tag", "group of groups", "group over folders"],
)
def test_finds_builtin_tasks_and_their_members(asked: str, found: int) -> None:
    assert len(TaskFiles([builtin_tasks()]).find([asked])) == found


def test_earlier_directories_win(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine", a="task: quiz\ndescription: mine\n")
    theirs = write(tmp_path / "theirs", b="task: quiz\ndescription: theirs\n", c="task: other\n")
    files = TaskFiles([mine, theirs])
    assert [definition.config["description"] for definition in files.find(["quiz"])] == ["mine"]
    assert names(files, "quiz", "other") == ["a", "c"]


def test_members_of_groups_may_be_in_any_folder(tmp_path: Path) -> None:
    mine = write(
        tmp_path / "mine",
        all="group: all\ntask:\n  - quiz\n  - group: inner\n    task: [tagged]\n  - task: inline\n    dataset_path: json\n",
        quiz="task: quiz\n",
    )
    theirs = write(tmp_path / "theirs/deep", x="include: _base\ntask: x\n", y="task: y\ntag: [tagged, more]\n", z="task: z\n")
    (theirs / "_base").write_text('"tag": tagged\n')
    assert names(TaskFiles([mine, tmp_path / "theirs"]), "all") == ["all", "quiz", "x", "y"]


def test_a_name_may_be_quoted_and_functions_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, a='"task": "quiz"\n"process_results": !function nowhere.at_all\n')
    (definition,) = TaskFiles([tmp_path]).find(["quiz"])
    assert definition.config["process_results"] == "nowhere.at_all"


def test_a_mounted_config_map_is_read_once(tmp_path: Path) -> None:
    data = write(tmp_path / "..2026_11_21", quiz="task: quiz\n")
    (tmp_path / "..data").symlink_to(data.name)
    (tmp_path / "quiz.yaml").symlink_to("..data/quiz.yaml")
    assert [definition.path for definition in TaskFiles([tmp_path]).find(["quiz"])] == [tmp_path / "quiz.yaml"]


def test_a_file_of_a_mounted_config_map_may_include_another_one_and_no_link_leads_out(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    write(mounted / "..2026_11_21", quiz="task: quiz\ninclude: base.yaml\n", base="dataset_path: json\n")
    (mounted / "..data").symlink_to("..2026_11_21")
    for name in ("quiz.yaml", "base.yaml"):
        (mounted / name).symlink_to(f"..data/{name}")
    (found,) = TaskFiles([mounted]).find(["quiz"])
    assert found.config["dataset_path"] == "json"
    write(tmp_path, outside="dataset_path: csv\n")
    (mounted / "base.yaml").unlink()
    (mounted / "base.yaml").symlink_to("../outside.yaml")
    with pytest.raises(StageError, match=r"include has base\.yaml, which is not among the task files"):
        TaskFiles([mounted]).find(["quiz"])


def test_data_and_dead_links_beside_the_tasks_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, quiz="task: quiz\n")
    (tmp_path / "rows.arrow").write_bytes(b"task: more\n" * 200_000)
    (tmp_path / "gone.yaml").symlink_to("nowhere.yaml")
    assert names(TaskFiles([tmp_path, tmp_path / "missing"]), "quiz") == ["quiz"]


@pytest.mark.parametrize(
    ("files", "reason", "words"),
    [
        ({"a": "task: arc_easy\n"}, "TaskNotFound", "no task, group or tag 'arc_esy'; did you mean arc_easy?"),
        ({}, "TaskNotFound", "provide its YAML file with evaluation.taskFiles"),
        ({"a": "group: arc_esy\ntask: [missing]\n"}, "TaskNotFound", "'missing' (a member of the group arc_esy)"),
        ({"a": "task: arc_esy\nlist: [1,\n"}, "TaskInvalid", "line 3"),
        ({"a": "task: arc_esy\ninclude: nothing.yaml\n"}, "TaskInvalid", "nothing.yaml (included by "),
        ({"a": "task: arc_esy\ninclude: a.yaml\n"}, "TaskInvalid", "a.yaml: it includes itself"),
        ({"a": "task: arc_esy\ninclude: b.yaml\n", "b": "- 1\n"}, "TaskInvalid", "b.yaml: it is not a YAML mapping"),
        (
            {"a": "task: arc_esy\ninclude: ../other.yaml\n", "../other": "dataset_path: json\n"},
            "TaskInvalid",
            "a.yaml: include has ../other.yaml, which is not among the task files; add the file to the ConfigMap of evaluation.taskFiles and write its key.",
        ),
        (
            {"a": "task: arc_esy\ninclude: [b.yaml]\n", "b": "include: /etc/hostname\n"},
            "TaskInvalid",
            "b.yaml: include has /etc/hostname, which is not among",
        ),
    ],
)
def test_faults_are_named(tmp_path: Path, files: dict[str, str], reason: str, words: str) -> None:
    with pytest.raises(StageError) as raised:
        TaskFiles([write(tmp_path, **files)]).find(["arc_esy"])
    assert raised.value.reason.name == reason
    assert words in raised.value.message
    assert "\n" not in raised.value.message


def test_lm_evals_own_index_is_never_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes up to 20 s: a task is made from its definition alone."""
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import TaskIndex

    from finetune_stages.evaluation.tasks import build_tasks

    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "one"}) + "\n")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    mine = write(
        tmp_path / "tasks", quiz="task: quiz\ndataset_path: json\ndataset_kwargs: {data_files: {test: " + str(tmp_path / "rows.jsonl") + "}}\n"
        "test_split: test\noutput_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: text\n",
    )  # fmt: skip
    build = TaskIndex.build
    monkeypatch.setattr(TaskIndex, "build", lambda self, paths: pytest.fail(f"{paths} were indexed") if paths else build(paths))
    (task,) = build_tasks(["quiz"], TaskFiles([mine, builtin_tasks()]).find(["quiz"]), TaskManager(include_defaults=False))
    assert task.task_name == "quiz"
