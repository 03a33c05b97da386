"""Work of stage *engine-check*: choose the engine as the training will, in its image and without its GPUs.

The base model is not there yet. The only choice that depends on it, that of engine ``training-hub`` for OSFT of a tied model of 32 bits,
is made by the training.
"""

from __future__ import annotations

from finetune_contract.documents import EngineCheckInputs
from finetune_contract.result import EngineCheckOutputs
from finetune_stages.sdk import Context, Finished
from finetune_stages.sdk.gpus import require_cuda_build

from .engines import choose
from .processes import GPU_FIELD

STAGE = "engine-check"


def check(context: Context) -> Finished:
    """Return the engine that this image offers for the training of the document. The driver of the GPUs is not checked.

    Raises:
        StageError: ``EngineMissing``, ``BadTrainingValue``.
    """
    inputs = context.inputs(EngineCheckInputs)
    engine = choose(inputs.training, inputs.explicit, inputs.processes, count_gpus=lambda: inputs.gpus)
    require_cuda_build(GPU_FIELD, inputs.gpus)
    return Finished(
        EngineCheckOutputs(engine.name, engine.reason, engine.versions), message=f"engine {engine.name}: {engine.reason}"
    )
