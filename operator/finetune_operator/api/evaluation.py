"""``spec.evaluation`` and ``spec.gate``: how the model is evaluated, and which requirements it must meet."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .pods import Placement, Resources
from .references import ConfigMapRef, SecretKeyRef
from .section import Duration, FreeValue, MetricName, Rule, Section, text

TaskName = Annotated[str, text(128, r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", "the name of a task, such as arc_easy")]

HOLDOUT_METRICS = tuple(f"holdout.{name}{error}" for name in ("bits_per_byte", "loss") for error in ("", "_stderr"))
"""Metrics of the held-out rows (``finetune_stages.evaluation.chat_task``)."""

SINGLE_TASKS = (
    "arc_challenge", "arc_easy", "boolq", "commonsense_qa", "copa", "drop", "gsm8k", "hellaswag", "humaneval", "ifeval", "lambada_openai",
    "logiqa", "mathqa", "mbpp", "medmcqa", "nq_open", "openbookqa", "piqa", "pubmedqa", "race", "sciq", "social_iqa", "squadv2", "swag",
    "triviaqa", "truthfulqa_mc1", "truthfulqa_mc2", "wikitext", "winogrande",
)  # fmt: skip
"""Well-known lm-eval tasks that are not groups: a metric ``<task>_<more>.<metric>`` belongs to a different task."""


class Generation(Section):
    """How text is generated for tasks that need it."""

    temperature: Annotated[float, Field(ge=0, le=10)] | None = Field(
        None, description="Sampling temperature; 0 always selects the most likely token. Default: set by the task."
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Probability mass for nucleus sampling. Default: set by the task."
    )
    top_k: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="Number of most likely tokens to sample from. Default: set by the task."
    )
    do_sample: bool | None = Field(
        None, description="Whether tokens are sampled; if false, the most likely token is selected. Default: set by the task."
    )
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="Largest number of tokens of an answer. Default: set by the task."
    )
    until: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=16)] | None = Field(
        None, description="Strings that end an answer. Default: set by the task."
    )


class Evaluation(Section):
    """How the model is evaluated: with lm-eval tasks, and on the held-out rows in bits per byte of the answers."""

    RULES = (
        Rule(
            "!has(self.enabled) || self.enabled || !has(self.baseline) || !self.baseline",
            "evaluation.baseline needs evaluation.enabled; remove one of them",
            field=".baseline",
        ),
    )

    enabled: bool | None = Field(None, description="Whether the model is evaluated.")
    tasks: Annotated[list[TaskName], Field(max_length=64)] | None = Field(
        None,
        description="Names of lm-eval tasks and groups, and of files with chat rows. The rows of <name>.jsonl in "
        "taskFiles are scored like held-out rows. An empty list scores the held-out rows only.",
    )
    task_files: ConfigMapRef | None = Field(
        None,
        description="ConfigMap with YAML files of lm-eval tasks, their data, and files with chat rows. Data is a key of the "
        "ConfigMap, a data set of the hub, or an http(s):// or hf:// address. A task must not have the name of a task of lm-eval.",
    )
    holdout: bool | None = Field(None, description="Whether the held-out rows are scored, if there are any.")
    baseline: bool | None = Field(
        None, description="Whether the base model is evaluated too. It always is if a requirement of the gate compares with it."
    )
    backend: Literal["auto", "vllm", "hf"] | None = Field(
        None, description="Inference backend. hf uses transformers. vllm uses vLLM. auto selects hf in this release."
    )
    limit: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        None, description="Number of questions per task. Default: all."
    )
    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="Number of requests per forward pass. Default: found by trial."
    )
    fewshot: Annotated[int, Field(ge=0, le=100)] | None = Field(
        None, description="Number of examples before each question. Default: set by the task."
    )
    system_instruction: Annotated[str, text(4096)] | None = Field(
        None, description="System message before each question. Default: none."
    )
    generation: Generation | None = Field(None, description="How text is generated for tasks that need it.")
    model_args: dict[Annotated[str, Field(max_length=64)], FreeValue] | None = Field(
        None,
        description="Further arguments of the backend, such as max_model_len, gpu_memory_utilization and dtype.",
        max_length=32,
    )
    log_samples: bool | None = Field(None, description="Whether every question and answer is kept in the workspace.")
    verbosity: Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None = Field(None, description="Log level of lm-eval.")
    on_failure: Literal["Fail", "Continue"] | None = Field(
        None,
        description="Handling of a failed evaluation. Fail fails the run. Continue registers the model without scores "
        "and is not allowed with a gate.",
    )
    gpus: Annotated[int, Field(ge=0, le=64)] | None = Field(None, description="Number of GPUs of the evaluation pod. Default: 0.")
    resources: Resources | None = Field(None, description="CPU and memory of the evaluation pod.")
    secret_ref: SecretKeyRef | None = Field(
        None, description="Secret with HF_TOKEN, for gated benchmark data. Default: the Secret hf-token, if it exists."
    )
    placement: Placement | None = Field(None, description="Scheduling, labels and annotations of the evaluation pod.")


class Requirement(Section):
    """Bound on one metric. At least one of min, max and maxRegression is required."""

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
        description="Name of the metric as in status.metrics.evaluation, in the form <task>.<metric>, such as "
        "arc_easy.acc or holdout.bits_per_byte."
    )
    min: float | None = Field(None, description="Smallest value that passes. Default: no bound.")
    max: float | None = Field(None, description="Largest value that passes. Default: no bound.")
    max_regression: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="Largest allowed regression against the baseline, in the unit of the metric. The direction of the "
        "metric determines which change is a regression. Default: no bound.",
    )
    within_standard_error: bool | None = Field(
        None,
        description="Whether the requirement also passes if it is missed by less than the standard error of the "
        "measurement. Default: false.",
    )


class Approval(Section):
    """Manual approval before the model is registered."""

    required: bool | None = Field(None, description="Whether the run waits for spec.approval. Default: false.")
    time_limit: Duration | None = Field(
        None, description="Duration, such as 72h, after which a run without a decision is rejected. Default: no limit."
    )


class Gate(Section):
    """Requirements that the model must meet to be registered."""

    RULES = (
        Rule(
            "has(self.requirements) && self.requirements.size() > 0"
            " || has(self.approval) && has(self.approval.required) && self.approval.required",
            "the gate requires nothing; add an entry to gate.requirements, or remove gate",
            run_only=True,  # defaults may state what happens to a rejected model, and a run what it requires
        ),
    )

    requirements: Annotated[list[Requirement], Field(max_length=32)] | None = Field(
        None, description="Bounds on metrics. All of them must hold."
    )
    baseline: Annotated[str, text(128)] | None = Field(
        None,
        description="Baseline of maxRegression, which is base-model, or a version or @alias in the registry. Default: "
        "base-model.",
    )
    approval: Approval | None = Field(None, description="Manual approval before the model is registered.")
    on_rejected: Literal["Keep", "RegisterAsRejected"] | None = Field(
        None,
        description="Handling of a rejected model. Keep keeps it in the workspace without registering it. "
        "RegisterAsRejected registers it, marked as rejected and without an alias. Default: Keep.",
    )
