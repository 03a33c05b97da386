"""``spec.training``: the algorithm, its numbers, and the pods that it runs in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .pods import EnvVar, Placement, Resources, Volume, VolumeMount
from .references import PullSecretRef
from .section import Fraction, FreeValue, ObjectName, Rule, Section, Size, text

Algorithm = Literal["sft", "osft", "lora"]
Patterns = Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=32)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
_PROCESSES = "(has(self.processesPerWorker) ? self.processesPerWorker : 1)"


class Osft(Section):
    """Orthogonal subspace fine-tuning (arXiv 2504.07097): learns in the directions that the base model uses least."""

    unfreeze_rank_ratio: Fraction | None = Field(
        None, description="Share of each weight's singular directions that is trained, 0 to 1; the largest stay frozen."
    )
    target_patterns: Patterns | None = Field(
        None, description="Parts of the names of the weights to treat. Default: the attention and MLP projections."
    )
    memory_efficient_init: bool | None = Field(None, description="Take the singular value decompositions one weight at a time.")
    trainable: Literal["all", "targets"] | None = Field(
        None,
        description="all also trains embeddings, head and norms in full, as Training Hub does; targets trains the factors only"
        " and forgets least (portable engine).",
    )


class Sft(Section):
    """Full-parameter supervised fine-tuning."""

    sharding: Literal["FULL_SHARD", "HYBRID_SHARD", "NO_SHARD"] | None = Field(
        None, description="How FSDP spreads weights, gradients and optimizer state over the processes."
    )


class Lora(Section):
    """Low-rank adapters (arXiv 2106.09685)."""

    rank: Annotated[int, Field(ge=1, le=1024)] | None = Field(None, description="Rank of the adapters.")
    alpha: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="Scale of the adapters; the factor is alpha / rank."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(None, description="Dropout in the adapters, 0 to below 1.")
    target_modules: Patterns | None = Field(
        None,
        description="Parts of the names of the weights that get adapters; all-linear means every linear layer. Default: the attention"
        " and MLP projections.",
    )
    rslora: bool | None = Field(None, description="Scale by alpha / sqrt(rank) (arXiv 2312.03732).")
    dora: bool | None = Field(None, description="Learn magnitude and direction apart (arXiv 2402.09353).")
    quantization: Literal["none", "4bit", "8bit"] | None = Field(
        None, description="How the frozen weights are held while training (QLoRA, arXiv 2305.14314)."
    )
    packing: bool | None = Field(None, description="Put several rows into one sequence; microBatchSize counts sequences then.")


class Checkpoints(Section):
    """What is saved on the way, and how training goes on after an interruption."""

    per_epoch: bool | None = Field(None, description="Save the model at the end of each epoch.")
    every_samples: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Save each time that many samples were seen; 0 is off."
    )
    every_minutes: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Save each time that many minutes passed; 0 is off."
    )
    full_state: bool | None = Field(None, description="Save optimizer and scheduler too, so that training can go on from there.")
    final: bool | None = Field(None, description="Save the model at the end.")
    keep: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="Keep only that many of the newest checkpoints. Default: all."
    )
    resume: bool | None = Field(None, description="Go on from the newest full checkpoint after an interruption.")


class Training(Section):
    """How the model is trained. Rates and counts that are not given come from the preset of the algorithm."""

    RULES = (
        Rule(
            "!has(self.osft) || !has(self.algorithm) || self.algorithm == 'osft'",
            "training.osft belongs to algorithm osft; remove it or change training.algorithm",
            field=".osft",
        ),
        Rule(
            "!has(self.sft) || !has(self.algorithm) || self.algorithm == 'sft'",
            "training.sft belongs to algorithm sft; remove it or set training.algorithm: sft",
            field=".sft",
        ),
        Rule(
            "!has(self.lora) || !has(self.algorithm) || self.algorithm == 'lora'",
            "training.lora belongs to algorithm lora; remove it or set training.algorithm: lora",
            field=".lora",
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
            "!has(self.image) || self.image.matches(r'^[A-Za-z0-9][-A-Za-z0-9._/:@+]*$')",
            "training.image is not the name of an image; write <registry>/<repository>:<tag> without spaces",
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

    enabled: bool | None = Field(None, description="false leaves training out: evaluate, gate and register the model as it is.")
    algorithm: Algorithm | None = Field(
        None, description="sft trains every weight, osft forgets least, lora trains small adapters. Default: osft."
    )
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = Field(None, description="Times that each row is seen.")
    effective_batch_size: Count | None = Field(None, description="Rows per optimizer step, over all processes.")
    micro_batch_size: Count | None = Field(
        None, description="Rows per forward pass and process. Default: what maxTokensPerGPU and the memory allow."
    )
    max_tokens_per_gpu: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        None, alias="maxTokensPerGPU", description="Largest number of tokens in a forward pass of one process."
    )
    max_seq_len: Annotated[int, Field(ge=8, le=10_000_000)] | None = Field(
        None, description="Longest row in tokens; longer rows are left out and counted."
    )
    learning_rate: Annotated[float, Field(gt=0, le=10)] | None = Field(None, description="Peak learning rate.")
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(None, description="Optimizer steps of linear warm-up.")
    scheduler: (
        Literal["cosine", "linear", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt", "cosine_with_min_lr"] | None
    ) = Field(None, description="How the learning rate falls.")
    scheduler_args: dict[Annotated[str, Field(max_length=64)], float] | None = Field(
        None, description="Numbers for the scheduler: num_cycles, power, min_lr_rate.", max_length=16
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(None, description="Seed of the order of rows and of dropout.")
    liger: bool | None = Field(None, description="Use Liger's fused kernels (GPU only).")
    unmask: bool | None = Field(
        None, description="Learn from every message but the system's. Otherwise only the assistant's messages are learned."
    )
    gradient_checkpointing: bool | None = Field(None, description="Compute activations twice to save memory.")
    osft: Osft | None = Field(None, description="Numbers of algorithm osft.")
    sft: Sft | None = Field(None, description="Numbers of algorithm sft.")
    lora: Lora | None = Field(None, description="Numbers of algorithm lora.")
    checkpoints: Checkpoints | None = Field(None, description="What is saved on the way.")
    engine: Literal["auto", "training-hub", "portable"] | None = Field(
        None,
        description="Who trains: Training Hub's backends, or transformers with TRL. auto takes what the runtime's image has.",
    )
    engine_args: dict[Annotated[str, Field(max_length=64)], FreeValue] | None = Field(
        None, description="Further arguments of the engine, checked against its signature.", max_length=32
    )
    runtime_ref: ObjectName | None = Field(None, description="ClusterTrainingRuntime that names the image.")
    image: Annotated[str, text(512)] | None = Field(None, description="Image of the training container. Default: the runtime's.")
    image_pull_secrets: Annotated[list[PullSecretRef], Field(max_length=8)] | None = Field(
        None, description="Secrets to pull the image with."
    )
    workers: Annotated[int, Field(ge=1, le=1024)] | None = Field(None, description="Pods that train together.")
    gpus_per_worker: Annotated[int, Field(ge=0, le=64)] | None = Field(None, description="GPUs of each pod.")
    processes_per_worker: Annotated[int, Field(ge=1, le=64)] | None = Field(
        None, description="Training processes in each pod. Default: one a GPU, or one."
    )
    resources: Resources | None = Field(None, description="Processor and memory of each pod.")
    env: Annotated[list[EnvVar], Field(max_length=32)] | None = Field(
        None, description="Environment variables; an entry replaces the preset's entry of the same name."
    )
    volumes: Annotated[list[Volume], Field(max_length=16)] | None = Field(None, description="Volumes beside the workspace.")
    volume_mounts: Annotated[list[VolumeMount], Field(max_length=16)] | None = Field(None, description="Where they appear.")
    shared_memory: Size | None = Field(None, description="Size of /dev/shm in bytes.")
    placement: Placement | None = Field(None, description="Where the pods run.")
