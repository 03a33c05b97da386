"""The model program compared with ``cp``: a model of random weights is downloaded from a server on this machine, verified and sealed.

The servers are those of the tests: a registry with the model as an artifact and as a container image, and an S3 server. All weights are
downloaded, hashed, checked for NaN and written. ``cp`` copies the same files on the same disk, with ``fsync``. Each download has the next
``cp`` as its pair, because the load of a machine changes.

python hack/bench/model_download.py [--megabytes 2000] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from figures import Measured, machine, measured, spread

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "hack"), str(ROOT / "tests")]

from registry_server import ARTIFACT_CONFIG, IMAGE_CONFIG, TAR, TITLE, FileBlob, RegistryServer  # noqa: E402
from s3_server import S3Server  # noqa: E402

_HIDDEN, _VOCABULARY, _SHARD = 2048, 32_000, 500_000_000
_TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("model download")
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model = place / "model"
        size = _write(model, options.megabytes * 1_000_000)
        print(f"  {size / 1e6:,.0f} MB in {len(list(model.iterdir()))} files")
        with RegistryServer(place / "registry") as registry:
            registry.push(
                "model:artifact", [FileBlob(path, TAR, {TITLE: path.name}) for path in sorted(model.iterdir())], ARTIFACT_CONFIG
            )
            _compare("artifact of a registry", place, model, options.repeats, f"oci://{registry.host}/model:artifact")
            layer = _layer(place / "layer.tar", model)
            registry.push("model:image", [FileBlob(layer)], IMAGE_CONFIG)
            layer.unlink()
            _compare("container image of a registry", place, model, options.repeats, f"oci://{registry.host}/model:image")
        shutil.rmtree(place / "registry")
        with S3Server(place / "s3") as s3:
            s3.bucket("models")
            for path in model.iterdir():
                s3.client.upload_file(str(path), "models", f"random/{path.name}")
            _compare("S3", place, model, options.repeats, "s3://models/random/", endpoint=s3.url, **S3Server.KEYS)


def _compare(what: str, place: Path, model: Path, repeats: int, uri: str, endpoint: str | None = None, **variables: str) -> None:
    pairs = [(_download(place, uri, endpoint, variables), _copy(place, model)) for _ in range(repeats)]
    for name, values in (("download", [ours for ours, _ in pairs]), ("cp", [copy for _, copy in pairs])):
        print(f"  {what}, {name}, wall: {spread([each.wall for each in values], 's')}")
        memory = spread([each.memory for each in values], "MB")
        print(f"    CPU: {spread([each.cpu for each in values], 's')}; memory: {memory}; load {os.getloadavg()[0]:.1f}")
    print(
        f"    speed of the download, share of cp's in each pair: {spread([copy.wall / ours.wall for ours, copy in pairs], '%', 100)}"
    )


def _download(place: Path, uri: str, endpoint: str | None, variables: dict[str, str]) -> Measured:
    workspace = place / "workspace"
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir()
    run = {"name": "bench", "namespace": "bench", "uid": "00000000"}
    inputs = {"uri": uri, **({"endpoint": endpoint} if endpoint else {})}
    document = {"contractVersion": 2, "stage": "model", "run": run, "inputs": inputs}
    (place / "document.json").write_text(json.dumps(document))
    own = {
        "FINETUNE_CONFIG": place / "document.json", "FINETUNE_WORKSPACE": workspace, "FINETUNE_RESULT": place / "result",
        "FINETUNE_ATTEMPT": "1.1", "FINETUNE_INPUTS_DIGEST": "0" * 64,
    }  # fmt: skip
    words = [f"{name}={value}" for name, value in {**own, **variables}.items()]
    found = _measured(["env", *words, sys.executable, "-m", "finetune_stages.model"], place)
    shutil.rmtree(workspace)
    return found


def _copy(place: Path, model: Path) -> Measured:
    target = place / "copy"
    found = _measured(["sh", "-c", f"cp -r {model} {target} && sync {target}/*"], place)
    shutil.rmtree(target)
    return found


def _measured(words: list[str], place: Path) -> Measured:
    """Run a command below a small process: the memory that the system counts includes that of the process that forks."""
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[2:]).returncode;"
        " open(sys.argv[1], 'w').write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)); sys.exit(done)"
    )
    found = measured([sys.executable, "-S", "-c", code, str(place / "memory"), *words], place)
    return replace(found, memory=int((place / "memory").read_text()) / 1000)


def _layer(archive: Path, model: Path) -> Path:
    """Write an archive of the model's files below ``models/``."""
    with tarfile.open(archive, "w") as made:
        for path in sorted(model.iterdir()):
            made.add(path, f"models/{path.name}")
    return archive


def _write(folder: Path, size: int) -> int:
    """Write a Llama of random bfloat16 weights in shards and return its size in bytes. One matrix of each layer is as large as necessary."""
    folder.mkdir()
    layers = max(1, round(size / _SHARD))
    rows = max(1, (size // 2 - _VOCABULARY * _HIDDEN) // layers // _HIDDEN)
    shapes = {"model.embed_tokens.weight": (_VOCABULARY, _HIDDEN)}
    shapes |= {f"model.layers.{number}.mlp.down_proj.weight": (_HIDDEN, rows) for number in range(layers)}
    generator = np.random.default_rng(1)
    index = {}
    for number, (name, shape) in enumerate(shapes.items()):
        shard = f"model-{number + 1:05}-of-{len(shapes):05}.safetensors"
        index[name] = shard
        length = shape[0] * shape[1] * 2
        header = json.dumps({name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, length]}}).encode()
        with (folder / shard).open("wb") as stream:
            stream.write(len(header).to_bytes(8, "little") + header)
            for begin in range(0, length, 1 << 24):
                numbers = generator.integers(0, 1 << 16, min(1 << 24, length - begin) // 2, np.uint16)
                stream.write((numbers & 0xBFFF).tobytes())  # without the exponents of infinity and NaN
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": _VOCABULARY, "hidden_size": _HIDDEN,
        "num_hidden_layers": layers, "tie_word_embeddings": True,
    }  # fmt: skip
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"},
    }
    files: dict[str, object] = {
        "config.json": config, "tokenizer.json": tokenizer, "tokenizer_config.json": {"chat_template": _TEMPLATE},
        "model.safetensors.index.json": {"metadata": {}, "weight_map": index},
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return sum(path.stat().st_size for path in folder.iterdir())


if __name__ == "__main__":
    main()
