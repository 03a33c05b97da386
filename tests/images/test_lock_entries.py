"""What runs inside the build: which entries of a lock a CPU image takes, and what torch's libraries are given in place of NVIDIA's."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from images.recipes import PROGRAMS, RECIPES, ROOT

BUILD = ROOT / "images" / "build"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A program of the build folder, which is no package: inside a build there is nothing but these files."""
    monkeypatch.syspath_prepend(str(BUILD))
    spec = importlib.util.spec_from_file_location(name, BUILD / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("environment", monkeypatch)


@pytest.fixture
def placeholders(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("cuda_placeholders", monkeypatch)


def locks() -> list[Path]:
    return [*(ROOT / recipe.lock for recipe in RECIPES.values()), BUILD / "tools.lock"]


@pytest.mark.parametrize("lock", sorted(set(locks())), ids=lambda path: path.stem)
def test_every_entry_of_a_lock_has_hashes_and_no_address(lock: Path, environment: ModuleType) -> None:
    text = lock.read_text(encoding="utf-8")
    found = environment.requirements(text)
    assert len(found) > 20
    assert all("==" in entry and "--hash=sha256:" in entry for entry in found.values())
    assert "://" not in text
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert sorted(lines) == sorted("".join(found.values()).splitlines()), "nothing is lost and nothing is added"


def test_a_package_with_a_version_for_each_python_keeps_both(environment: ModuleType) -> None:
    found = environment.requirements(
        "numpy==1.0 ; python_version < '3.12' \\\n    --hash=sha256:1\n    # via pandas\n"
        "numpy==2.0 ; python_version >= '3.12' \\\n    --hash=sha256:2\nsix==1 \\\n    --hash=sha256:3\n"
    )
    assert list(found) == ["numpy", "six"]
    assert [line.strip() for line in found["numpy"].splitlines() if "hash" in line] == ["--hash=sha256:1", "--hash=sha256:2"]


def test_a_cpu_image_leaves_out_what_only_gpus_need(environment: ModuleType, placeholders: ModuleType) -> None:
    found = environment.requirements((ROOT / "requirements/stages.lock").read_text(encoding="utf-8"))
    left_out = {name for name in found if placeholders.is_only_for_gpus(name)}
    assert {"triton", "liger-kernel", "bitsandbytes", "nvidia-cublas", "nvidia-cudnn-cu13", "cuda-toolkit"} <= left_out
    assert not left_out & {"torch", "nvidia-cuda-runtime", "numpy"}


def test_one_resolution_serves_all_programs(environment: ModuleType) -> None:
    """What a program was tested with beside the others is what it has in its own image."""
    everything = environment.requirements((ROOT / "requirements/stages.lock").read_text(encoding="utf-8"))
    for program in PROGRAMS:
        one = environment.requirements((ROOT / f"requirements/{program}.lock").read_text(encoding="utf-8"))
        assert all(versions(text) <= versions(everything[name]) for name, text in one.items())


def test_the_image_that_renders_rows_has_the_templates_and_no_torch(environment: ModuleType) -> None:
    found = environment.requirements((ROOT / "requirements/dataset.lock").read_text(encoding="utf-8"))
    assert {"datasets", "jinja2", "tokenizers", "transformers", "trl"} <= set(found)
    assert not {"accelerate", "torch", "triton"} & set(found)


def versions(entry: str) -> set[str]:
    return {line.partition(" ")[0] for line in entry.splitlines() if "==" in line.partition(" ")[0]}


def test_a_library_loads_with_placeholders_and_a_call_names_what_is_missing(tmp_path: Path, placeholders: ModuleType) -> None:
    """A library that is linked against two of NVIDIA's, one with versioned symbols: as torch's are."""
    site, apart = tmp_path / "site", tmp_path / "apart"
    libraries = site / "torch" / "lib"
    for folder in (libraries, apart):
        folder.mkdir(parents=True)
    cc(
        apart,
        "libcublas.so.13",
        "void cublasCreate(void) {}",
        "-Wl,--version-script=exports",
        exports="libcublas.so.13 { global: *; };",
    )
    cc(apart, "libnccl.so.2", "void ncclInit(void) {}")
    source = "void cublasCreate(void); void ncclInit(void); int fine(void) { return 7; } void gpu(void) { cublasCreate(); ncclInit(); }"
    cc(libraries, "libtorch_cuda.so", source, f"-L{apart}", "-l:libcublas.so.13", "-l:libnccl.so.2", "-Wl,-rpath,$ORIGIN")
    script = f"import ctypes, os; torch = ctypes.CDLL({str(libraries / 'libtorch_cuda.so')!r}, mode=os.RTLD_NOW)"

    before = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "libcublas.so.13: cannot open shared object file" in before.stderr

    assert placeholders.write(site) == ["libcublas.so.13", "libnccl.so.2"]
    works = subprocess.run([sys.executable, "-c", f"{script}; print(torch.fine())"], capture_output=True, text=True, check=False)
    assert (works.stdout, works.stderr) == ("7\n", "")
    called = subprocess.run([sys.executable, "-c", f"{script}; torch.gpu()"], capture_output=True, text=True, check=False)
    assert called.returncode < 0
    assert called.stderr == (
        "cublasCreate: this image was built for CPUs and has no GPU libraries; use the CUDA image of this stage\n"
    )


def cc(folder: Path, name: str, source: str, *options: str, exports: str = "") -> None:
    (folder / "source.c").write_text(source, encoding="utf-8")
    (folder / "exports").write_text(exports, encoding="utf-8")
    words = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", name, "source.c", *options]
    subprocess.run(words, cwd=folder, check=True)
