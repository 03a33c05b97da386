"""The dataset program compared with the pipelines' component: a file of chat rows is read, validated, split 0.9 and written as JSON Lines.

Both run as new processes on the same file, in turns, and must publish the same rows in the same order. The component's method is that of
``dataset_download`` in the OpenShift AI pipelines: ``load_dataset("json")``, validation of the first 100 rows, ``train_test_split`` with seed
42, ``to_json`` twice (artifacts and workspace). Ours validates and hashes every row.

python hack/bench/dataset.py [--rows 1000000] [--repeats 3] [--only subset]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from figures import Measured, machine, measured, spread

_CHARACTERS = 450
"""Mean length of a message; a row has about 1 kB."""
_UPSTREAM = """
import random, sys
from datasets import load_dataset
source, folder, subset = sys.argv[1], sys.argv[2], int(sys.argv[3])
rows = load_dataset("json", data_files=source, split="train", cache_dir=folder + "/cache")
if 0 < subset < len(rows):
    random.seed(42)
    rows = rows.select(random.sample(range(len(rows)), subset))
for row in rows.select(range(min(100, len(rows)))):
    assert all(message["role"] in ("system", "user", "assistant", "function", "tool") and "content" in message for message in row["messages"])
parts = rows.train_test_split(test_size=1 - 0.9, seed=42)
for folder in (folder + "/artifacts", folder):  # the artifacts of the pipeline, and the workspace
    parts["train"].to_json(folder + "/train.jsonl", lines=True, force_ascii=False)
    parts["test"].to_json(folder + "/eval.jsonl", lines=True, force_ascii=False)
"""
_DIGEST = "SHA-256 of the file"
_FLOORS = {
    "copy of the file": "shutil.copyfile(path, path + '.copy')",
    _DIGEST: "hashlib.file_digest(open(path, 'rb'), 'sha256')",
    "json.loads of every line": "[None for line in open(path, 'rb') if not json.loads(line)]",
    "msgspec, typed, of every line": "[None for line in open(path, 'rb') if not decode(line)]",
}
"""What any method has to do, in a process each."""
_PRELUDE = """
import hashlib, json, shutil, sys
import msgspec
class Message(msgspec.Struct): role: str; content: str
class Row(msgspec.Struct): messages: list[Message]
decode, path = msgspec.json.Decoder(Row).decode, sys.argv[1]
"""


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("split", "subset"), help="measure one of the comparisons, and no array")
    options = parser.parse_args()
    print("dataset")
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        place, source = Path(folder), Path(folder) / "rows.jsonl"
        _write(source, options.rows)
        print(f"  {options.rows:,} rows, {source.stat().st_size / 1e6:,.0f} MB")
        for name in _FLOORS:
            _show(name, [_floor(name, source, place)])
        (place / "rows.jsonl.copy").unlink()
        if options.only != "subset":
            _compare("split 0.9", place, source, 0, options.repeats)
        if options.only != "split":
            _compare("subset of 2,000", place, source, 2000, options.repeats)
        if options.only:
            return
        array = place / "rows.json"
        _write_array(source, array, 300_000_000)
        _show(f"ours, one array of {array.stat().st_size / 1e6:,.0f} MB", [_ours(place, array, 0)])


def _compare(what: str, place: Path, source: Path, subset: int, repeats: int) -> None:
    pairs, digests = [], []
    for number in range(repeats):  # each is the first of a pair as often as the other
        digests.append(_floor(_DIGEST, source, place))
        calls = (_upstream, _ours) if number % 2 else (_ours, _upstream)
        found = [call(place, source, subset) for call in calls]
        pairs.append(tuple(found if number % 2 else reversed(found)))
    _require_equal(place)
    _show(f"upstream's method (baseline), {what}", [first for first, _ in pairs])
    _show(f"dataset program, {what}", [second for _, second in pairs])
    print(f"    wall, ratio of each pair: {spread([first.wall / second.wall for first, second in pairs], 'x')}")
    print(f"    CPU, ratio of each pair: {spread([first.cpu / second.cpu for first, second in pairs], 'x')}")
    _show(f"{_DIGEST} (baseline), {what}", digests)
    print(
        f"    CPU, dataset program to digest: {spread([ours.cpu / one.cpu for (_, ours), one in zip(pairs, digests, strict=True)], 'x')}"
    )


def _show(name: str, values: Sequence[Measured]) -> None:
    print(f"  {name}, wall: {spread([each.wall for each in values], 's')}")
    print(
        f"    CPU: {spread([each.cpu for each in values], 's')}; memory: {spread([each.memory for each in values], 'MB')}; load {os.getloadavg()[0]:.1f}"
    )


def _rows(count: int) -> Iterator[str]:
    generator = random.Random(1)
    words = [*(f"word{number}" for number in range(2000)), *("naïve", '"quoted"', "line\nbreak") * 20]
    texts = [" ".join(generator.choices(words, k=_CHARACTERS // 8)) for _ in range(5000)]
    for number in range(count):
        messages = [
            {"role": "user", "content": f"{number} {generator.choice(texts)}"},
            {"role": "assistant", "content": generator.choice(texts)},
        ]
        yield json.dumps({"messages": messages}, ensure_ascii=False)


def _write(path: Path, count: int) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(f"{row}\n" for row in _rows(count))


def _write_array(source: Path, target: Path, size: int) -> None:
    """Write the first rows as one indented array with an emoji, up to ``size`` bytes."""
    with source.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as stream:
        stream.write('[{"messages": [{"role": "user", "content": "\N{GRINNING FACE}"}, {"role": "assistant", "content": "a"}]}')
        written = 0
        for line in lines:
            written += stream.write(f",\n{json.dumps(json.loads(line), indent=1, ensure_ascii=False)}")
            if written >= size:
                break
        stream.write("]")


def _upstream(place: Path, source: Path, subset: int) -> Measured:
    folder = place / "upstream"
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    (folder / "artifacts").mkdir(parents=True)
    return measured([sys.executable, "-c", _UPSTREAM, str(source), str(folder), str(subset)], place)


def _floor(name: str, source: Path, place: Path) -> Measured:
    return measured([sys.executable, "-c", _PRELUDE + _FLOORS[name], str(source)], place)


def _ours(place: Path, source: Path, subset: int) -> Measured:
    workspace = place / "workspace"
    subprocess.run(["rm", "-rf", str(workspace)], check=True)
    workspace.mkdir()
    run = {"name": "bench", "namespace": "bench", "uid": "00000000"}
    document = {"contractVersion": 2, "stage": "dataset", "run": run, "inputs": {"uri": str(source), "subset": subset}}
    (place / "document.json").write_text(json.dumps(document))
    os.environ.update(FINETUNE_CONFIG=str(place / "document.json"), FINETUNE_WORKSPACE=str(workspace))
    return measured([sys.executable, "-m", "finetune_stages.dataset"], place)


def _require_equal(place: Path) -> None:
    """Check that both methods published the same rows in the same order."""
    for name in ("train.jsonl", "eval.jsonl"):
        theirs, ours = (place / folder / name for folder in ("upstream", "workspace/runs/bench-00000000/datasets"))
        with theirs.open("rb") as one, ours.open("rb") as other:
            for first, second in zip(one, other, strict=True):
                if msgspec.json.decode(first) != msgspec.json.decode(second):
                    raise SystemExit(f"{name}: the rows differ")


if __name__ == "__main__":
    main()
