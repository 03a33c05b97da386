"""Seals of published files: digests that are known are not computed again, and copies are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finetune_stages.sdk.workspace import SealedFile, copy_or_link_file, file_sha256, seal_directory, verify_seal


def test_a_known_digest_is_taken_and_others_are_computed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    known = SealedFile(1, file_sha256(tmp_path / "a"))
    seal = seal_directory(tmp_path, known={"a": known, "gone": known})
    assert seal.files == {"a": known, "b": SealedFile(1, file_sha256(tmp_path / "b"))}
    assert seal == seal_directory(tmp_path) == verify_seal(tmp_path)
    wrong = SealedFile(1, "0" * 64)
    assert seal_directory(tmp_path, known={"a": wrong}).files["a"] == wrong
    assert verify_seal(tmp_path) is None


def test_a_file_is_copied_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("text")
    assert copy_or_link_file(tmp_path / "a", tmp_path / "linked")
    assert (tmp_path / "linked").stat().st_ino == (tmp_path / "a").stat().st_ino

    def refuse(*_paths: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    assert not copy_or_link_file(tmp_path / "a", tmp_path / "copied")
    assert (tmp_path / "copied").read_text() == "text"
    assert (tmp_path / "copied").stat().st_ino != (tmp_path / "a").stat().st_ino
