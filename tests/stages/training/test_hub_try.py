from __future__ import annotations

import pytest

from finetune_contract.documents import CheckpointInputs, OsftInputs

SETS = dict(line.split() for line in __import__("pathlib").Path("/tmp/compat-paths.txt").read_text().splitlines() if line.strip())
ROOT = "/tmp/trees/hub14"


def env(**more):
    return {
        "PYTHONPATH": f"/tmp/trees/compat14/tests/compat/shim:/tmp/hubtry/dist:{ROOT}/images:{ROOT}/operator",
        "FINETUNE_TEST_CPU_SHIM": "1",
        "LD_LIBRARY_PATH": "/tmp/hubtry",
        "PYTHONWARNINGS": "ignore",
        "TESTING": "true",
        **more,
    }


@pytest.fixture(scope="session")
def old_model(tiny_model, tmp_path_factory):
    import json
    import shutil

    target = tmp_path_factory.mktemp("old") / "model"
    shutil.copytree(tiny_model, target)
    path = target / "tokenizer_config.json"
    config = json.loads(path.read_text())
    print(config)
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config))
    return target


@pytest.mark.parametrize("which", SETS)
@pytest.mark.parametrize("algorithm", ["sft", "osft"])
def test_hub(new_bench, old_model, inputs, which, algorithm):
    bench = new_bench(old_model)
    one = inputs(
        algorithm=algorithm,
        engine="training-hub",
        gradient_checkpointing=True,
        osft=OsftInputs() if algorithm == "osft" else None,
        checkpoints=CheckpointInputs(per_epoch=True),
    )
    ended = bench.train(one, environment=env(), command=[SETS[which], "-m", "finetune_stages.training"])
    print(ended.output[-6000:], ended.errors[-3000:], ended.result)
    print(bench.leftovers())
    assert ended.code == 0
