"""``spec.evaluation`` and ``spec.gate``: how the result is measured, and what it must reach."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .pods import Placement, Resources
from .references import ConfigMapRef, SecretKeyRef
from .section import Duration, FreeValue, MetricName, Rule, Section, text

TaskName = Annotated[str, text(128, r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", "the name of a task, such as arc_easy")]

HOLDOUT_METRICS = tuple(f"holdout.{name}{error}" for name in ("bits_per_byte", "loss") for error in ("", "_stderr"))
"""The metrics of the held-out rows (``finetune_stages.evaluation.chat_task``)."""

SINGLE_TASKS = (
    "arc_challenge", "arc_easy", "boolq", "commonsense_qa", "copa", "drop", "gsm8k", "hellaswag", "humaneval", "ifeval", "lambada_openai",
    "logiqa", "mathqa", "mbpp", "medmcqa", "nq_open", "openbookqa", "piqa", "pubmedqa", "race", "sciq", "social_iqa", "squadv2", "swag",
    "triviaqa", "truthfulqa_mc1", "truthfulqa_mc2", "wikitext", "winogrande",
)  # fmt: skip
"""Well-known tasks of lm-eval that are no groups: a metric ``<task>_<more>.<metric>`` belongs to another task than theirs."""


class Generation(Section):
    """How text is generated where a task asks for it."""

    temperature: Annotated[float, Field(ge=0, le=10)] | None = Field(
        None, description="0 takes the likeliest token. Default: the task's."
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(None, description="Nucleus sampling. Default: the task's.")
    top_k: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="Likeliest tokens to draw from. Default: the task's."
    )
    do_sample: bool | None = Field(None, description="Draw instead of taking the likeliest. Default: the task's.")
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="Longest answer in tokens. Default: the task's."
    )
    until: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=16)] | None = Field(
        None, description="Texts that end an answer. Default: the task's."
    )


class Evaluation(Section):
    """How the model is measured: lm-eval tasks, and the held-out rows in bits per byte of the assistant's answers."""

    RULES = (
        Rule(
            "!has(self.enabled) || self.enabled || !has(self.baseline) || !self.baseline",
            "evaluation.baseline needs evaluation.enabled; remove one of them",
            field=".baseline",
        ),
    )

    enabled: bool | None = Field(None, description="false leaves evaluation out.")
    tasks: Annotated[list[TaskName], Field(max_length=64)] | None = Field(
        None,
        description="lm-eval tasks and groups, and files of chat rows among the task files: <name>.jsonl is measured as the held-out"
        " rows are. An empty list measures the held-out rows only.",
    )
    task_files: ConfigMapRef | None = Field(
        None,
        description="ConfigMap with lm-eval task YAML files and files of chat rows. Files under tasks/ in the workspace are found"
        " without it.",
    )
    holdout: bool | None = Field(None, description="Measure the held-out rows, where there are any.")
    baseline: bool | None = Field(
        None, description="Measure the base model too. Always done where a requirement of the gate compares with it."
    )
    backend: Literal["auto", "vllm", "hf"] | None = Field(
        None, description="Who runs the model. auto takes vLLM on GPUs, else hf."
    )
    limit: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(None, description="Questions per task. Default: all.")
    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="Requests per forward pass. Default: found by trial."
    )
    fewshot: Annotated[int, Field(ge=0, le=100)] | None = Field(
        None, description="Examples before each question. Default: the task's."
    )
    system_instruction: Annotated[str, text(4096)] | None = Field(None, description="System message before each question.")
    generation: Generation | None = Field(None, description="How text is generated.")
    model_args: dict[Annotated[str, Field(max_length=64)], FreeValue] | None = Field(
        None, description="Further arguments of the backend: max_model_len, gpu_memory_utilization, dtype.", max_length=32
    )
    log_samples: bool | None = Field(None, description="Keep every question and answer in the workspace.")
    verbosity: Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None = Field(
        None, description="How much lm-eval writes to the log."
    )
    on_failure: Literal["Fail", "Continue"] | None = Field(
        None, description="Continue registers the model even if evaluation fails (not with a gate)."
    )
    gpus: Annotated[int, Field(ge=0, le=64)] | None = Field(None, description="GPUs of the pod. Default: 1 with vLLM, 0 with hf.")
    resources: Resources | None = Field(None, description="Processor and memory of the pod.")
    secret_ref: SecretKeyRef | None = Field(
        None, description="Secret with HF_TOKEN, for gated benchmark data. Default: the Secret hf-token, where it exists."
    )
    placement: Placement | None = Field(None, description="Where the pod runs.")


class Requirement(Section):
    """A bound on one metric."""

    RULES = (
        Rule(
            "has(self.min) || has(self.max) || has(self.maxRegression)",
            "a requirement of the gate needs min, max or maxRegression",
        ),
        Rule(
            "!has(self.maxRegression) || !self.metric.endsWith('_stderr')",
            "a standard error has no good direction, so that maxRegression cannot compare it; use min or max",
            field=".maxRegression",
        ),
        Rule("!has(self.min) || !has(self.max) || self.min <= self.max", "min must not be above max", field=".min"),
    )

    metric: MetricName = Field(
        description="<task>.<metric>, as status.metrics.evaluation names it: arc_easy.acc, holdout.bits_per_byte."
    )
    min: float | None = Field(None, description="Smallest value that passes.")
    max: float | None = Field(None, description="Largest value that passes.")
    max_regression: Annotated[float, Field(ge=0)] | None = Field(
        None, description="How much worse than the baseline it may be, in the metric's own unit and direction."
    )
    within_standard_error: bool | None = Field(
        None, description="Forgive a miss that is smaller than the measurement's standard error. Default: false."
    )


class Approval(Section):
    """A person's word before the model is registered."""

    required: bool | None = Field(None, description="Wait for spec.approval. Default: false.")
    time_limit: Duration | None = Field(None, description="Reject when nobody decided in that time. Default: wait for ever.")


class Gate(Section):
    """What the model must reach to be registered."""

    RULES = (
        Rule(
            "has(self.requirements) && self.requirements.size() > 0"
            " || has(self.approval) && has(self.approval.required) && self.approval.required",
            "the gate requires nothing; add an entry to gate.requirements, or remove gate",
        ),
    )

    requirements: Annotated[list[Requirement], Field(max_length=32)] | None = Field(
        None, description="Bounds that must all hold."
    )
    baseline: Annotated[str, text(128)] | None = Field(
        None,
        description="What maxRegression compares with: base-model, or a version or @alias in the registry. Default: base-model.",
    )
    approval: Approval | None = Field(None, description="A person's word.")
    on_rejected: Literal["Keep", "RegisterAsRejected"] | None = Field(
        None, description="Keep the model without registering it, or register it marked as rejected. Default: Keep."
    )
