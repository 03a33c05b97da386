"""Try built images under a cluster's restrictions: any user, a read-only root, no capabilities, no network."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from finetune_contract import CONTRACT_VERSION
from finetune_contract.codec import encode
from finetune_contract.documents import DatasetInputs, RunInfo, StageDocument

from .builds import Image
from .engines import Engine, Trial
from .recipes import PROGRAMS, programs_in

WORKSPACE, DOCUMENTS = "/workspace", "/etc/finetune"
_POD = {
    "HOME": "/tmp/home", "TMPDIR": "/tmp", "HF_HOME": "/tmp/huggingface", "XDG_CACHE_HOME": "/tmp/cache", "OMP_NUM_THREADS": "1",
    "FINETUNE_WORKSPACE": WORKSPACE,
}  # fmt: skip
"""Environment of every stage's container (core/manifests/pod.py)."""
_COMPUTING = {"training": "trl, peft, accelerate", "evaluation": "lm_eval"}
"""Programs that compute with torch, and their other imports."""
_RUN = RunInfo("trial", "default", "0123456789abcdef")


@dataclass(frozen=True)
class Finding:
    """The result of a trial."""

    what: str
    passed: bool
    said: str


def attempt(image: Image, engine: Engine) -> list[Finding]:
    """Run all trials for an image.

    Raises:
        CannotBuildError: no engine can run it.
    """
    engine.load(image.archive, image.tag, image.built_as)
    if image.recipe.name == "operator":
        return [_operator_helps(image, engine)]
    programs = PROGRAMS if image.recipe.name == "stages" else (image.recipe.name.removesuffix("-cuda"),)
    started = dict.fromkeys(each for program in programs for each in programs_in(program))
    found = [_program_wants_its_document(image, engine, program) for program in started]
    if "dataset" in programs:
        found += [_dataset_is_prepared(image, engine), _rows_are_rendered(image, engine)]
    found += [_torch_computes(image, engine, program) for program in programs if program in _COMPUTING]
    found += [_it_can_train(image, engine)] if "training" in programs else []
    return found


def _operator_helps(image: Image, engine: Engine) -> Finding:
    done = engine.run(image.built_as, Trial(["python", "-m", "finetune_operator", "--help"], {}, {}))
    return Finding("python -m finetune_operator --help", done.returncode == 0 and "--kubeconfig" in done.stdout, done.stdout)


def _program_wants_its_document(image: Image, engine: Engine, program: str) -> Finding:
    """Without a document, a program ends with a message and with the exit code of user errors."""
    done = engine.run(image.built_as, Trial(["python", "-m", f"finetune_stages.{program}"], {"HOME": "/tmp"}, {}))
    said = done.stdout + done.stderr
    return Finding(
        f"python -m finetune_stages.{program} without a document", done.returncode == 65 and "FINETUNE_CONFIG" in said, said
    )


def _torch_computes(image: Image, engine: Engine, program: str) -> Finding:
    """A forward and a backward pass and a decomposition; torch must detect that there is no GPU."""
    script = f"""
import torch, transformers, {_COMPUTING[program]}
weight = torch.randn(16, 16, requires_grad=True)
(weight @ weight).square().sum().backward()
print(torch.linalg.svdvals(weight.detach()).shape, weight.grad.isfinite().all().item(), torch.cuda.is_available())
"""
    done = engine.run(image.built_as, Trial(["python", "-c", script], _POD, {}))
    said = done.stdout + done.stderr
    return Finding(f"what {program} imports computes on a CPU", "torch.Size([16]) True False" in said, said)


def _it_can_train(image: Image, engine: Engine) -> Finding:
    """An image for GPUs also has what Triton needs: a C compiler with headers, and an assembler for GPUs."""
    done = engine.run(image.built_as, Trial(["python", "-m", "finetune_stages.training", "--check", "--deep"], _POD, {}))
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = {"trains": False}
    passed = found["trains"] and "problem" not in found["torch"]
    if image.recipe.name.endswith("-cuda"):
        passed = passed and found["compiler"]["works"] and found["triton"]["compiles"]
    return Finding("python -m finetune_stages.training --check --deep", bool(passed), done.stdout + done.stderr)


def _rows_are_rendered(image: Image, engine: Engine) -> Finding:
    """The libraries of stage *tokenization* import and render, with TRL's templates for training and without PyTorch."""
    script = """
from finetune_stages.sdk import without
with without("torch"):
    import finetune_stages.tokenization.work
    from trl.chat_template_utils import qwen3_training_chat_template
    from finetune_stages.chat.template import Template
    print(Template(qwen3_training_chat_template, {}).text([{"role": "user", "content": "hello"}]))
"""
    done = engine.run(image.built_as, Trial(["python", "-c", script], _POD, {}))
    return Finding("rows are rendered without PyTorch", "<|im_start|>user\nhello" in done.stdout, done.stdout + done.stderr)


def _dataset_is_prepared(image: Image, engine: Engine) -> Finding:
    """A real stage, on a folder that only its group may write, like a claim with an fsGroup."""
    rows = [
        {"messages": [{"role": "user", "content": f"How much is {n} + 1?"}, {"role": "assistant", "content": str(n + 1)}]}
        for n in range(10)
    ]
    with tempfile.TemporaryDirectory() as folder:
        workspace, documents = Path(folder, "workspace"), Path(folder, "documents")
        workspace.mkdir(mode=0o775)
        documents.mkdir()
        workspace.chmod(0o775)  # of root and writable by group 0, whatever the umask
        (workspace / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        document = StageDocument(CONTRACT_VERSION, "dataset", _RUN, encode(DatasetInputs(uri=f"{WORKSPACE}/rows.jsonl")))
        (documents / "dataset.json").write_text(json.dumps(encode(document)), encoding="utf-8")
        Path(folder).chmod(0o755)
        environment = {**_POD, "FINETUNE_CONFIG": f"{DOCUMENTS}/dataset.json", "FINETUNE_RESULT": f"{WORKSPACE}/termination-log"}
        command = ["python", "-m", "finetune_stages.dataset"]
        done = engine.run(image.built_as, Trial(command, environment, {workspace: WORKSPACE, documents: DOCUMENTS}))
        rows_written = workspace / _RUN.layout.train_data
        passed = done.returncode == 0 and rows_written.exists() and bool(rows_written.stat().st_mode & 0o020)
    return Finding("a data set is prepared, by a user that exists nowhere", passed, done.stdout + done.stderr)
