"""Where everything is in a workspace volume: workspace-relative paths, one function a question.

::

    <volume>/
      cache/datasets/<sha256>/  cache/models/<sha256>/  cache/baselines/<sha256>/    shared by all runs of the volume
      cache/results/<stage>.<inputs-digest>.json                 where a finished result for these inputs is
      tasks/                                                     lm-eval task files that users keep beside their runs
      mlflow.db                                                  the local registry (local mode only)
      runs/<name>-<uid8>/
        datasets/{train,eval}.jsonl                              chat rows to train on, and held-out ones
        datasets/{train,eval}.locations.npy                      row and line of each of these rows in the user's source
        base_model/                                              link into cache/models
        tokens/                                                  what training and evaluation read: the rows, rendered and tokenized
        checkpoints/  final_model/  adapter/                     what training leaves; LoRA's adapter beside the merged model
        results/<stage>.json                                     full result of the stage's last round
        results/<stage>.<round>.<inputs12>.json                  full results; a restarted program repeats its own
        logs/<stage>.<round>.<attempt>.<rank>.log                every rank's whole output
        attempts/<stage>/current                                 the attempt that may publish
        attempts/<stage>/<round>.<attempt>/                      unfinished work, published by rename
        pipeline_log.txt                                         a line a stage, as the old pipelines wrote it

The names ``datasets``, ``checkpoints``, ``final_model`` and ``pipeline_log.txt`` are those of the OpenShift AI pipelines.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

CACHE_DATASETS = "cache/datasets"
CACHE_MODELS = "cache/models"
CACHE_BASELINES = "cache/baselines"
CACHE_RESULTS = "cache/results"
TASKS = "tasks"
HOLDOUT = "holdout"
"""Name of the evaluation task that the held-out rows make."""
MLFLOW_STORE = "mlflow.db"

SENTINEL = ".finetune.json"
"""Written last into every published directory: its digest and its files. A directory without it is not finished."""


def run_root(name: str, uid: str) -> str:
    """Return ``runs/<name>-<uid8>``: a run of the same name made again later gets its own folder."""
    return f"runs/{name}-{uid[:8]}"


@dataclass(frozen=True)
class Attempt:
    """One try of one stage: ``round`` grows when a user reruns, ``number`` when the operator tries again."""

    round: int
    number: int

    def __str__(self) -> str:
        return f"{self.round}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> Attempt:
        """Return the inverse of ``str()``.

        Raises:
            ValueError: the text is not ``<round>.<number>``.
        """
        round_, _, number = text.partition(".")
        return cls(int(round_), int(number))

    @property
    def order(self) -> tuple[int, int]:
        """What decides which of two attempts is the newer one."""
        return (self.round, self.number)


@dataclass(frozen=True)
class RunLayout:
    """The paths inside one run's folder."""

    root: str

    @property
    def datasets(self) -> str:
        """The folder with the prepared data."""
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
        """Where the rows of :attr:`train_data` are in their source: a NumPy file, int64, shape (rows, 2).

        Row number in the source and line number there, both from 1; the line is 0 where the source has no lines. The seal of
        the folder names the sources: ``source`` (of the rows to train on) and ``evalSource`` (of the held-out rows).
        """
        return f"{self.datasets}/train.locations.npy"

    @property
    def eval_locations(self) -> str:
        """The same for the rows of :attr:`eval_data`."""
        return f"{self.datasets}/eval.locations.npy"

    @property
    def tokens(self) -> str:
        """The folder with tokens and labels to train on, and rendered conversations to measure with.

        The rows to train on are one behind the other in three NumPy arrays, which are mapped, not read. The conversations of a task
        are JSON Lines: ``row`` and ``line`` in the source, ``passages`` with ``text`` and ``answers`` (ranges of characters).
        """
        return f"{self.root}/tokens"

    @property
    def token_ids(self) -> str:
        """Token ids of all rows to train on, int32."""
        return f"{self.tokens}/tokens.npy"

    @property
    def learned_tokens(self) -> str:
        """Whether each of these tokens is a label, bool."""
        return f"{self.tokens}/learned.npy"

    @property
    def token_offsets(self) -> str:
        """Where each row begins, and where the last one ends, int64: one more than there are rows."""
        return f"{self.tokens}/offsets.npy"

    def passages(self, task: str) -> str:
        """Rendered conversations of the held-out rows (``holdout``) or of a task that is a file of chat rows."""
        return f"{self.tokens}/passages/{quote(task, safe='')}.jsonl"

    @property
    def base_model(self) -> str:
        """The model that training starts from."""
        return f"{self.root}/base_model"

    @property
    def checkpoints(self) -> str:
        """Models saved on the way."""
        return f"{self.root}/checkpoints"

    @property
    def final_model(self) -> str:
        """The fine-tuned model: weights, tokenizer, chat template."""
        return f"{self.root}/final_model"

    @property
    def adapter(self) -> str:
        """LoRA's adapter, beside the merged model."""
        return f"{self.root}/adapter"

    @property
    def pipeline_log(self) -> str:
        """One line for each thing that a stage did, for people."""
        return f"{self.root}/pipeline_log.txt"

    def result(self, stage: str, round_: int, inputs_digest: str) -> str:
        """Return the full result of a stage in a round, for these inputs."""
        return f"{self.root}/results/{stage}.{round_}.{inputs_digest[:12]}.json"

    def newest_result(self, stage: str) -> str:
        """Return the full result of the stage's last finished round, for the stages after it and for people."""
        return f"{self.root}/results/{stage}.json"

    def attempt(self, stage: str, attempt: Attempt) -> str:
        """Return where an attempt works before it publishes."""
        return f"{self.root}/attempts/{stage}/{attempt}"

    def current(self, stage: str) -> str:
        """Return the file that names the attempt which may publish."""
        return f"{self.root}/attempts/{stage}/current"

    def log(self, stage: str, attempt: Attempt, rank: int) -> str:
        """Return the whole output of one process."""
        return f"{self.root}/logs/{stage}.{attempt}.{rank}.log"
