"""``spec.training``: the algorithm, its parameters and its pods."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .pods import EnvVar, Placement, Resources, Volume, VolumeMount
from .references import PullSecretRef
from .section import Fraction, FreeValue, ObjectName, Rule, Section, Size, text

Algorithm = Literal["sft", "osft", "lora"]
Patterns = Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=32)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
_REPOSITORY = "[a-z0-9]+([._-]+[a-z0-9]+)*"
IMAGE = (
    rf"^([A-Za-z0-9]+([.-]+[A-Za-z0-9]+)*(:[0-9]+)?/)?{_REPOSITORY}(/{_REPOSITORY})*"
    r"(:[A-Za-z0-9_][-A-Za-z0-9._]{0,127})?(@[A-Za-z0-9]+([._+-][A-Za-z0-9]+)*:[0-9a-fA-F]+)?$"
)
"""Pattern of the name of an image: registry, repository, tag and digest (the grammar of the OCI distribution specification)."""
_HOST = "[A-Za-z0-9]+([.-]+[A-Za-z0-9]+)*(:[0-9]+)?"
BEGINNING_OF_IMAGES = rf"^{_HOST}/?$|^({_HOST}/)?{_REPOSITORY}(/{_REPOSITORY})*/$|{IMAGE}"
"""Pattern of the name of a registry, a namespace, a repository or an image."""
_PROCESSES = "(has(self.processesPerWorker) ? self.processesPerWorker : 1)"


class Osft(Section):
    """Parameters of orthogonal subspace fine-tuning (arXiv 2504.07097), which learns in the directions that the base model uses least."""

    unfreeze_rank_ratio: Fraction | None = Field(
        None,
        description="Share of the singular directions of each weight that are trained; those with the largest "
        "singular values stay frozen.",
    )
    target_patterns: Patterns | None = Field(
        None,
        description="Substrings of the names of the weights that are decomposed. Default: the attention and MLP projections.",
    )
    memory_efficient_init: bool | None = Field(
        None, description="Whether the singular value decompositions are computed one weight at a time, to save memory."
    )
    trainable: Literal["all", "targets"] | None = Field(
        None,
        description="Which weights are trained. all trains the decomposed weights, and embeddings, output layer and "
        "norms in full, as in Training Hub. targets trains the decomposed weights only, which retains the "
        "most of the base model (portable engine only).",
    )


class Sft(Section):
    """Parameters of full-parameter supervised fine-tuning."""

    sharding: Literal["FULL_SHARD", "HYBRID_SHARD", "NO_SHARD"] | None = Field(
        None,
        description="FSDP sharding strategy for weights, gradients and optimizer state. Several processes of engine portable support NO_SHARD only.",
    )


class Lora(Section):
    """Parameters of low-rank adapters (arXiv 2106.09685)."""

    rank: Annotated[int, Field(ge=1, le=1024)] | None = Field(None, description="Rank of the adapters.")
    alpha: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="Scale of the adapters; their output is multiplied by alpha / rank."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(None, description="Dropout probability in the adapters.")
    target_modules: Patterns | None = Field(
        None,
        description="Substrings of the names of the layers that get adapters; all-linear selects every linear layer. "
        "Default: the attention and MLP projections.",
    )
    rslora: bool | None = Field(
        None,
        description="Whether the output of the adapters is multiplied by alpha / sqrt(rank) instead of alpha / rank "
        "(arXiv 2312.03732).",
    )
    dora: bool | None = Field(
        None, description="Whether magnitude and direction are learned separately (DoRA, arXiv 2402.09353)."
    )
    quantization: Literal["none", "4bit", "8bit"] | None = Field(
        None,
        description="Quantization of the frozen weights during training (QLoRA, arXiv 2305.14314). 4bit and 8bit need "
        "an NVIDIA GPU.",
    )
    packing: bool | None = Field(
        None, description="Whether several rows share one sequence; microBatchSize then counts sequences."
    )


class Checkpoints(Section):
    """What is saved during training, and how training resumes after an interruption."""

    per_epoch: bool | None = Field(None, description="Whether the model is saved at the end of each epoch.")
    every_samples: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Number of rows between two checkpoints; 0 disables these checkpoints."
    )
    every_minutes: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Number of minutes between two checkpoints; 0 disables these checkpoints."
    )
    full_state: bool | None = Field(
        None,
        description="Whether checkpoints contain the state of optimizer and scheduler, so that training can resume from them.",
    )
    final: bool | None = Field(None, description="Whether the model is saved at the end of training.")
    keep: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="Number of most recent checkpoints to keep. Default: all."
    )
    resume: bool | None = Field(
        None, description="Whether training resumes from the latest full checkpoint after an interruption."
    )


class Training(Section):
    """How the model is trained. Fields without a value default to the preset of the algorithm."""

    RULES = (
        Rule(
            "!has(self.osft) || !has(self.algorithm) || self.algorithm == 'osft'",
            "training.osft belongs to algorithm osft; remove it or change training.algorithm",
            field=".osft",
            run_only=True,  # defaults may have parameters for each algorithm
        ),
        Rule(
            "!has(self.sft) || !has(self.algorithm) || self.algorithm == 'sft'",
            "training.sft belongs to algorithm sft; remove it or set training.algorithm: sft",
            field=".sft",
            run_only=True,  # defaults may have parameters for each algorithm
        ),
        Rule(
            "!has(self.lora) || !has(self.algorithm) || self.algorithm == 'lora'",
            "training.lora belongs to algorithm lora; remove it or set training.algorithm: lora",
            field=".lora",
            run_only=True,  # defaults may have parameters for each algorithm
        ),
        Rule(
            """!has(self.algorithm) || self.algorithm != 'sft' || !has(self.checkpoints)
            || !has(self.checkpoints.perEpoch) || self.checkpoints.perEpoch
            || !has(self.checkpoints.final) || self.checkpoints.final
            || (has(self.checkpoints.everySamples) && self.checkpoints.everySamples > 0)""",
            "SFT must keep a checkpoint, or training leaves no model: set perEpoch or final in training.checkpoints",
            field=".checkpoints",
        ),
        Rule(
            "!has(self.microBatchSize) || !has(self.effectiveBatchSize) || self.effectiveBatchSize % self.microBatchSize == 0",
            "training.effectiveBatchSize must be a multiple of training.microBatchSize",
            field=".microBatchSize",
        ),
        Rule(
            f"!has(self.image) || self.image.matches(r'{IMAGE}')",
            "training.image is not the name of an image; write <registry>/<repository>:<tag> without https:// and spaces, the repository in"
            " lower case",
            field=".image",
        ),
        Rule(
            f"!has(self.effectiveBatchSize) || !has(self.workers) || self.effectiveBatchSize % (self.workers * {_PROCESSES}) == 0",
            "training.effectiveBatchSize cannot be shared evenly by all training processes; use a multiple of training.workers times"
            " training.processesPerWorker",
            field=".effectiveBatchSize",
        ),
        Rule(
            "!has(self.maxTokensPerGPU) || !has(self.maxSeqLen) || self.maxTokensPerGPU >= self.maxSeqLen",
            "training.maxTokensPerGPU must be at least training.maxSeqLen, or the longest rows fit nowhere",
            field=".maxTokensPerGPU",
        ),
        Rule(
            "!has(self.volumeMounts) || !has(self.volumes)"
            " || self.volumeMounts.all(mount, self.volumes.exists(volume, volume.name == mount.name))",
            "each entry of training.volumeMounts needs a volume of that name in training.volumes",
            field=".volumeMounts",
        ),
        Rule(
            "!has(self.volumes) || self.volumes.all(one, self.volumes.exists_one(other, other.name == one.name))",
            "training.volumes names a volume twice; rename or remove one of them",
            field=".volumes",
        ),
        Rule(
            """!has(self.volumeMounts) || self.volumeMounts.all(one, self.volumeMounts.exists_one(other,
              other.mountPath == one.mountPath || other.mountPath == one.mountPath + '/' || other.mountPath + '/' == one.mountPath))""",
            "training.volumeMounts has two mounts at one mountPath; move or remove one of them",
            field=".volumeMounts",
        ),
        Rule(
            "!has(self.env) || self.env.all(one, self.env.exists_one(other, other.name == one.name))",
            "training.env names a variable twice; keep one of them",
            field=".env",
        ),
    )

    enabled: bool | None = Field(
        None,
        description="Whether the model is trained. If false, the base model is evaluated, passed to the gate and registered.",
    )
    algorithm: Algorithm | None = Field(
        None,
        description="Training algorithm. sft trains every weight. osft trains every weight in the directions that the "
        "base model uses least, and forgets least. lora trains small adapters. Default: osft.",
    )
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = Field(None, description="Number of passes over the training rows.")
    effective_batch_size: Count | None = Field(None, description="Number of rows per optimizer step, over all processes.")
    micro_batch_size: Count | None = Field(
        None,
        description="Number of rows per forward pass of one process. Default: as many as maxTokensPerGPU and the memory allow.",
    )
    max_tokens_per_gpu: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        None, alias="maxTokensPerGPU", description="Largest number of tokens in one forward pass of one process."
    )
    max_seq_len: Annotated[int, Field(ge=8, le=10_000_000)] | None = Field(
        None, description="Largest number of tokens of a row; longer rows are left out and counted in status.rows."
    )
    learning_rate: Annotated[float, Field(gt=0, le=10)] | None = Field(None, description="Peak learning rate.")
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        None, description="Number of optimizer steps over which the learning rate rises linearly from 0."
    )
    scheduler: (
        Literal["cosine", "linear", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt", "cosine_with_min_lr"] | None
    ) = Field(None, description="Learning rate schedule after the warm-up.")
    scheduler_args: dict[Annotated[str, Field(max_length=64)], float] | None = Field(
        None, description="Numeric arguments of the schedule, such as num_cycles, power and min_lr_rate.", max_length=16
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description="Seed of the order of the rows and of dropout."
    )
    liger: bool | None = Field(
        None,
        description="Whether to use Liger's fused kernels. Only engine training-hub with algorithm osft supports them.",
    )
    unmask: bool | None = Field(
        None,
        description="Whether all messages but the system message are learned. If false, only the messages of the "
        "assistant are learned.",
    )
    gradient_checkpointing: bool | None = Field(
        None, description="Whether activations are recomputed in the backward pass, which saves memory and costs time."
    )
    osft: Osft | None = Field(None, description="Parameters of algorithm osft.")
    sft: Sft | None = Field(None, description="Parameters of algorithm sft.")
    lora: Lora | None = Field(None, description="Parameters of algorithm lora.")
    checkpoints: Checkpoints | None = Field(None, description="What is saved during training.")
    engine: Literal["auto", "training-hub", "portable"] | None = Field(
        None,
        description="Training engine. portable uses PyTorch and transformers. training-hub uses the backends of Training "
        "Hub and supports sft and osft. auto selects training-hub where the training image has it and it can honor the values of "
        "the run, and otherwise portable.",
    )
    engine_args: dict[Annotated[str, Field(max_length=64)], FreeValue] | None = Field(
        None, description="Further arguments of the engine, validated against its signature.", max_length=32
    )
    runtime_ref: ObjectName | None = Field(None, description="Name of the ClusterTrainingRuntime.")
    image: Annotated[str, text(512)] | None = Field(
        None,
        description="Image of the training container. Default: the training image of the operator's configuration, or "
        "else the image of the runtime.",
    )
    image_pull_secrets: Annotated[list[PullSecretRef], Field(max_length=8)] | None = Field(
        None, description="Secrets to pull the training image with."
    )
    workers: Annotated[int, Field(ge=1, le=1024)] | None = Field(None, description="Number of training pods.")
    gpus_per_worker: Annotated[int, Field(ge=0, le=64)] | None = Field(None, description="Number of GPUs of each training pod.")
    processes_per_worker: Annotated[int, Field(ge=1, le=64)] | None = Field(
        None, description="Number of training processes in each pod. Default: one per GPU, or one without GPUs."
    )
    resources: Resources | None = Field(None, description="CPU and memory of each training pod.")
    env: Annotated[list[EnvVar], Field(max_length=32)] | None = Field(
        None, description="Environment variables of the training container. An entry replaces the default entry of the same name."
    )
    volumes: Annotated[list[Volume], Field(max_length=16)] | None = Field(
        None, description="Volumes of the training pods, in addition to the workspace."
    )
    volume_mounts: Annotated[list[VolumeMount], Field(max_length=16)] | None = Field(
        None, description="Paths at which the training container mounts these volumes."
    )
    shared_memory: Size | None = Field(None, description="Size of /dev/shm, as a quantity in bytes such as 8Gi.")
    placement: Placement | None = Field(None, description="Scheduling, labels and annotations of the training pods.")
