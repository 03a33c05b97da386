"""The cache of sealed directories under several writers."""

from __future__ import annotations

import threading
from pathlib import Path

from finetune_stages.sdk import seal_directory, verify_seal
from finetune_stages.sources.cache import store_entry


def sealed(folder: Path, content: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "file").write_text(content)
    seal_directory(folder)
    return folder


def test_the_first_writer_wins_and_its_entry_never_disappears(tmp_path):
    place = tmp_path / "cache" / "key"
    sources = [sealed(tmp_path / f"writer-{number}", "same") for number in range(16)]
    store_entry(sources.pop(), place)
    first = place.stat().st_ino
    together = threading.Barrier(len(sources))
    absent = []

    def write(source: Path) -> None:
        together.wait()
        store_entry(source, place)
        if not (place / "file").exists():
            absent.append(source)

    threads = [threading.Thread(target=write, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert absent == []
    assert place.stat().st_ino == first
    assert verify_seal(place) is not None
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_damaged_entry_is_replaced(tmp_path):
    place = tmp_path / "cache" / "key"
    store_entry(sealed(tmp_path / "first", "good"), place)
    (place / "file").write_text("bad!")
    assert verify_seal(place) is None
    store_entry(sealed(tmp_path / "second", "good"), place)
    assert verify_seal(place) is not None
    assert (place / "file").read_text() == "good"
