"""Layout of a workspace volume: workspace-relative paths.

::

    <volume>/
      cache/datasets/<sha256>/  cache/models/<sha256>/  cache/baselines/<sha256>/    shared by all runs of the volume
      cache/results/<stage>/<inputs-digest>.json                 reusable result for these inputs
      mlflow.db                                                  the local registry (local mode only)
      runs/<name>-<uid8>/
        datasets/{train,eval}.jsonl                              chat rows to train on, and held-out ones
        datasets/{train,eval}.locations.npy                      row and line of each of these rows in the user's source
        datasets/bad_rows.jsonl                                  rows that were left out as bad, if there are any: source, row, line, fault
        base_model/                                              link into cache/models
        tokens/                                                  rendered and tokenized rows, for training and evaluation
        training/                                                all that stage training writes:
          checkpoints/  final_model/  adapter/                   outputs; LoRA has an adapter and a merged model
          results/  logs/  attempts/  pipeline_log.txt           as below, of this stage
        results/<stage>.json                                     full result of the stage's last round
        results/<stage>.<round>.<inputs12>.json                  full results, which a restarted program reuses
        logs/<stage>.<round>.<attempt>.<rank>.log                output of each rank
        attempts/<stage>/current                                 attempt that may publish
        attempts/<stage>/<round>.<attempt>/                      unfinished work, published by rename
        pipeline_log.txt                                         one line per stage, as in the OpenShift AI pipelines

The names ``datasets``, ``checkpoints``, ``final_model`` and ``pipeline_log.txt`` are those of the OpenShift AI pipelines.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

CACHE_DATASETS = "cache/datasets"
CACHE_MODELS = "cache/models"
CACHE_BASELINES = "cache/baselines"
CACHE_RESULTS = "cache/results"
HOLDOUT = "holdout"
"""Name of the evaluation task for the held-out rows."""
MLFLOW_STORE = "mlflow.db"

TRAINING = "training"
"""The stage that runs images of users. It has a folder of its own in that of the run; isolated pods can write only there."""

SENTINEL = ".finetune.json"
"""File with the digest and the files of a published directory, written last. A directory without it is incomplete."""


def run_root(name: str, uid: str) -> str:
    """Return ``runs/<name>-<uid8>``: a new run with the same name gets its own folder."""
    return f"runs/{name}-{uid[:8]}"


@dataclass(frozen=True)
class Attempt:
    """An attempt of a stage: ``round`` increases with a user's rerun, ``number`` with the operator's retry."""

    round: int
    number: int

    def __str__(self) -> str:
        return f"{self.round}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> Attempt:
        """Return the attempt from ``<round>.<number>``.

        Raises:
            ValueError: the text is not ``<round>.<number>``.
        """
        round_, _, number = text.partition(".")
        return cls(int(round_), int(number))

    @property
    def order(self) -> tuple[int, int]:
        """Sort key: a newer attempt has a larger one."""
        return (self.round, self.number)


@dataclass(frozen=True)
class RunLayout:
    """Paths inside a run's folder."""

    root: str

    def folder(self, stage: str) -> str:
        """Return the folder below which a stage writes: that of the run, or the stage's own one."""
        return f"{self.root}/{TRAINING}" if stage == TRAINING else self.root

    @property
    def datasets(self) -> str:
        """Folder of the prepared data."""
        return f"{self.root}/datasets"

    @property
    def train_data(self) -> str:
        """Chat rows to train on, JSONL."""
        return f"{self.datasets}/train.jsonl"

    @property
    def eval_data(self) -> str:
        """Held-out chat rows, JSONL; empty if nothing was held out."""
        return f"{self.datasets}/eval.jsonl"

    @property
    def train_locations(self) -> str:
        """Locations in the source of the rows of :attr:`train_data`: a NumPy file, int64, shape (rows, 2).

        Row number and line number in the source, both from 1; the line is 0 if the source has no lines. The seal of the folder has
        the sources: ``source`` (of the training rows) and ``evalSource`` (of the held-out rows).
        """
        return f"{self.datasets}/train.locations.npy"

    @property
    def eval_locations(self) -> str:
        """Locations of the rows of :attr:`eval_data`, in the same form."""
        return f"{self.datasets}/eval.locations.npy"

    @property
    def tokens(self) -> str:
        """Folder of tokens and labels for training, and of rendered conversations for evaluation.

        The training rows are concatenated in three NumPy arrays, which are memory-mapped. The conversations of a task are JSON Lines:
        ``row`` and ``line`` in the source, ``passages`` with ``text`` and ``answers`` (ranges of characters).
        """
        return f"{self.root}/tokens"

    @property
    def token_ids(self) -> str:
        """Token ids of all training rows, int32."""
        return f"{self.tokens}/tokens.npy"

    @property
    def learned_tokens(self) -> str:
        """Whether each of these tokens is a label, bool."""
        return f"{self.tokens}/learned.npy"

    @property
    def token_offsets(self) -> str:
        """Start of each row and end of the last one, int64, length rows + 1."""
        return f"{self.tokens}/offsets.npy"

    @property
    def sample(self) -> str:
        """The first training rows as the model reads them, with what is learned: JSON, a list of ``result.SampleRow``."""
        return f"{self.tokens}/sample.json"

    def passages(self, task: str) -> str:
        """Rendered conversations of the held-out rows (``holdout``) or of a task that is a file of chat rows."""
        return f"{self.tokens}/passages/{quote(task, safe='')}.jsonl"

    @property
    def base_model(self) -> str:
        """Link to the base model."""
        return f"{self.root}/base_model"

    @property
    def checkpoints(self) -> str:
        """Models saved during training."""
        return f"{self.folder(TRAINING)}/checkpoints"

    @property
    def final_model(self) -> str:
        """The fine-tuned model: weights, tokenizer, chat template."""
        return f"{self.folder(TRAINING)}/final_model"

    @property
    def adapter(self) -> str:
        """LoRA's adapter."""
        return f"{self.folder(TRAINING)}/adapter"

    def pipeline_log(self, stage: str) -> str:
        """Log with one line per stage, for users."""
        return f"{self.folder(stage)}/pipeline_log.txt"

    def results(self, stage: str) -> str:
        """Return the folder of a stage's results."""
        return f"{self.folder(stage)}/results"

    def result(self, stage: str, round_: int, inputs_digest: str) -> str:
        """Return the path of a stage's full result in a round, for these inputs."""
        return f"{self.results(stage)}/{stage}.{round_}.{inputs_digest[:12]}.json"

    def newest_result(self, stage: str) -> str:
        """Return the path of the full result of the stage's last finished round, for later stages and users."""
        return f"{self.results(stage)}/{stage}.json"

    def attempt(self, stage: str, attempt: Attempt) -> str:
        """Return the folder for an attempt's unpublished work."""
        return f"{self.folder(stage)}/attempts/{stage}/{attempt}"

    def current(self, stage: str) -> str:
        """Return the path of the file with the attempt that may publish."""
        return f"{self.folder(stage)}/attempts/{stage}/current"

    def log(self, stage: str, attempt: Attempt, rank: int) -> str:
        """Return the path of one process's log."""
        return f"{self.folder(stage)}/logs/{stage}.{attempt}.{rank}.log"
