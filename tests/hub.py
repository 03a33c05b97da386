"""A Hugging Face hub on the loopback interface, for the real ``huggingface_hub`` and ``datasets`` libraries.

Point ``HF_ENDPOINT`` at :attr:`Server.url`. It answers for repository information, trees, path information, references, access
checks, and files by revision with ``ETag``, ``X-Repo-Commit`` and byte ranges. Repositories can be private or gated::

    with Hub(tmp_path / "hub") as hub:
        commit = hub.add("model", "org/tiny", folder)
        hub.add("dataset", "org/chat", {"train.jsonl": b"..."}, gated=True)
        hub.tokens["hf_secret"] = {"org/chat"}  # this token opens it
        hub.fault("model.safetensors", reset_after=1000)  # and what else web_server.Fault can do

A program is given the address when it is started: the libraries read ``HF_ENDPOINT`` once, when they are imported.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from web_server import Answer, Request, Server

LARGE = (".safetensors", ".bin", ".parquet", ".model")
"""Files that the hub keeps in LFS: their SHA-256 is part of its answers."""

RepoType = Literal["model", "dataset"]


@dataclass
class Repository:
    """A repository of the hub: its commits (folders), what names them, and who may read it."""

    commits: dict[str, Path]
    refs: dict[str, str]
    private: bool = False
    gated: bool = False


class Hub(Server):
    """A hub-compatible server whose repositories are below ``folder``.

    Attributes:
        tokens: token to the repositories that it opens; every token here is a valid one.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        super().__init__(host)
        self.folder = folder
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.tokens: dict[str, set[str]] = {}
        self._stated: dict[tuple[str, str], str] = {}

    def state(self, repo_id: str, name: str, sha256: str) -> None:
        """Let the hub state this digest of a large file from now on, whatever its content is."""
        self._stated[repo_id, name] = sha256

    def add(
        self, repo_type: RepoType, repo_id: str, content: Path | Mapping[str, bytes], revision: str = "main",
        private: bool = False, gated: bool = False,
    ) -> str:  # fmt: skip
        """Commit ``content`` (a folder, or names and bytes) as ``revision``; returns the commit's hash."""
        files = content if isinstance(content, Mapping) else _read_folder(content)
        names = json.dumps({name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())})
        commit = hashlib.sha1(f"{repo_type} {repo_id} {names}".encode()).hexdigest()
        place = self.folder / f"{repo_type}s" / repo_id / commit
        shutil.rmtree(place, ignore_errors=True)
        for name, data in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
        repository = self.repositories.setdefault((f"{repo_type}s", repo_id), Repository({}, {}))
        repository.commits[commit] = place
        repository.refs[revision] = commit
        repository.private, repository.gated = private, gated
        return commit

    def answer(self, request: Request, body: bytes) -> Answer:
        path = unquote(urlsplit(request.path).path).strip("/")
        if path.startswith("api/"):
            return self._api(path.removeprefix("api/"), request, body)
        kind, path = ("datasets", path.removeprefix("datasets/")) if path.startswith("datasets/") else ("models", path)
        repo_id, _, rest = path.partition("/resolve/")
        revision, _, name = rest.partition("/")
        return self._resolve(kind, repo_id, revision, name, request)

    def _api(self, path: str, request: Request, body: bytes) -> Answer:
        if path == "whoami-v2":
            return _json({"name": "tester", "type": "user"}) if self._token(request) in self.tokens else _rejection(401, "")
        kind, _, rest = path.partition("/")
        for action in ("/revision/", "/tree/", "/paths-info/", "/refs", "/auth-check"):
            repo_id, found, argument = rest.partition(action)
            if found:
                break
        else:
            repo_id, action, argument = rest, "/revision/", "main"
        repository, refusal = self._open(kind, repo_id, request, files=action == "/auth-check")
        if repository is None or action == "/auth-check":
            return refusal
        if action == "/refs":
            branches = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": at} for name, at in repository.refs.items()]
            return _json({"branches": branches, "tags": [], "converts": []})
        revision, _, below = argument.partition("/") if action == "/tree/" else (argument, "", "")
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return _rejection(404, "RevisionNotFound")
        place = repository.commits[commit]
        if action == "/revision/":
            information = _information(repo_id, commit, repository, place)
            for sibling in information["siblings"]:
                if (repo_id, sibling["rfilename"]) in self._stated:
                    sibling["lfs"]["sha256"] = self._stated[repo_id, sibling["rfilename"]]
            return _json(information)
        if action == "/tree/":
            return _tree(
                place, below, recursive="true" in parse_qs(urlsplit(request.path).query).get("recursive", ["false"])[0].lower()
            )
        return _json([entry for name in parse_qs(body.decode())["paths"] if (entry := _entry(place, name.strip("/")))])

    def _resolve(self, kind: str, repo_id: str, revision: str, name: str, request: Request) -> Answer:
        repository, refusal = self._open(kind, repo_id, request, files=True)
        if repository is None:
            return refusal
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return _rejection(404, "RevisionNotFound")
        file = repository.commits[commit] / name
        if not file.is_file():
            return _rejection(404, "EntryNotFound", {"X-Repo-Commit": commit})
        return Answer(200, {"ETag": f'"{_oid(file)}"', "X-Repo-Commit": commit}, file)

    def _open(self, kind: str, repo_id: str, request: Request, files: bool) -> tuple[Repository | None, Answer]:
        """The repository, if the request may see it. Of a gated one everybody sees what it is, and only some its files."""
        repository = self.repositories.get((kind, repo_id))
        token = self._token(request)
        if token is not None and token not in self.tokens:
            return None, _rejection(401, "", {"X-Error-Message": "Invalid credentials in Authorization header"})
        if repository is None:
            return None, _rejection(404, "RepoNotFound")
        if repo_id not in self.tokens.get(token or "", ()):
            if repository.private:
                return None, _rejection(404 if token else 401, "RepoNotFound")
            if repository.gated and files:
                return None, _rejection(403 if token else 401, "GatedRepo")
        return repository, Answer(200)

    @staticmethod
    def _token(request: Request) -> str | None:
        header = request.headers.get("authorization")
        return header.removeprefix("Bearer ") if header else None


def _read_folder(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _json(value: Any) -> Answer:
    return Answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())


def _rejection(status: int, code: str, headers: Mapping[str, str] | None = None) -> Answer:
    coded = {"X-Error-Code": code} if code else {}
    return Answer(status, {**coded, **(headers or {}), "Content-Type": "application/json"}, json.dumps({"error": code}).encode())


def _oid(file: Path) -> str:
    """The file's ETag: SHA-256 of large files, git's object id of others."""
    data = file.read_bytes()
    if file.name.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _information(repo_id: str, commit: str, repository: Repository, place: Path) -> dict[str, Any]:
    siblings = []
    for file in sorted(path for path in place.rglob("*") if path.is_file()):
        size = file.stat().st_size
        sibling = {"rfilename": str(file.relative_to(place)), "size": size, "blobId": _oid(file)}
        if file.name.endswith(LARGE):
            sibling["lfs"] = {"size": size, "sha256": _oid(file), "pointerSize": 134}
        siblings.append(sibling)
    return {
        "id": repo_id, "sha": commit, "private": repository.private, "gated": "auto" if repository.gated else False,
        "disabled": False, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings,
    }  # fmt: skip


def _entry(place: Path, name: str) -> dict[str, Any] | None:
    path = place / name
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest()}
    if not path.is_file():
        return None
    entry: dict[str, Any] = {"type": "file", "path": name, "size": path.stat().st_size, "oid": _oid(path)}
    if path.name.endswith(LARGE):
        entry["lfs"] = {"oid": _oid(path), "size": entry["size"], "pointerSize": 134}
    return entry


def _tree(place: Path, below: str, recursive: bool) -> Answer:
    root = place / below
    if not root.is_dir():
        return _rejection(404, "EntryNotFound")
    found = sorted(root.rglob("*") if recursive else root.iterdir())
    return _json([_entry(place, str(path.relative_to(place))) for path in found])
