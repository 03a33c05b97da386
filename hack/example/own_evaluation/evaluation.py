"""An evaluation of one's own behind the stage contract: the share of held-out answers that are not empty.

It is an example for any program that measures a model. The operator starts it as ``python -m finetune_stages.evaluation``, for the fine-tuned model and,
where a baseline is asked for, for the base model. ``finetune_contract`` (standard library only) reads the document and writes the result.
"""

import json
import os
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from finetune_contract import exitcodes, reasons
from finetune_contract.codec import DocumentError, decode, encode
from finetune_contract.documents import EvaluationInputs, StageDocument
from finetune_contract.result import EvaluationOutputs, Result, termination_message


def main() -> int:
    """Measure, write the result, and report success by the exit code."""
    document = StageDocument.parse(json.loads(Path(os.environ["FINETUNE_CONFIG"]).read_bytes()))
    inputs = decode(EvaluationInputs, document.inputs)
    workspace, layout = Path(os.environ["FINETUNE_WORKSPACE"]), document.run.layout
    model = workspace / (layout.final_model if inputs.subject == "final" else layout.base_model)
    digest = json.loads((model / ".finetune.json").read_bytes())["digest"]
    rows = [json.loads(line) for line in (workspace / layout.eval_data).read_bytes().split(b"\n") if line]
    answers = [row["messages"][-1]["content"] for row in rows][: inputs.limit]
    if not answers:
        return end(document, "Failed", reasons.NOTHING_TO_EVALUATE.name, "There is no held-out row to measure with.")
    score = sum(bool(answer.strip()) for answer in answers) / len(answers)
    outputs = EvaluationOutputs(digest, len(answers), (), {"answers.share": True})
    return end(document, "Succeeded", None, f"{len(answers)} answers", {"answers.share": score}, encode(outputs))


def end(
    document: StageDocument, outcome: str, reason: str | None, message: str, metrics: object = None, outputs: object = None
) -> int:
    """Write the result, whole into the workspace and short as the termination message."""
    attempt, inputs_digest = os.environ["FINETUNE_ATTEMPT"], os.environ["FINETUNE_INPUTS_DIGEST"]
    result = Result(document.stage, attempt, inputs_digest, outcome, reason, message, metrics or {}, outputs or {})
    if outcome == "Succeeded":
        file = Path(os.environ["FINETUNE_WORKSPACE"]) / document.run.layout.newest_result(document.stage)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        content = json.dumps(encode(result)).encode()
        part.write_bytes(content)
        part.rename(file)  # whoever reads it finds all of it
        result = replace(result, file=document.run.layout.newest_result(document.stage), file_digest=sha256(content).hexdigest())
    Path(os.environ["FINETUNE_RESULT"]).write_text(termination_message(result), encoding="utf-8")
    return exitcodes.DONE if outcome == "Succeeded" else exitcodes.USER_ERROR


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DocumentError as error:
        sys.exit(str(error))
