"""Placeholders for the GPU libraries of torch.

Every Linux wheel of torch on PyPI is a CUDA build: its libraries link to 3 GB of NVIDIA's and do not load if one is missing, although no
CPU computation calls them. A CPU image has placeholders instead: libraries with the same names and symbols, a few kB each, that end the
process with a message if they are called. The CUDA runtime is real, because torch queries it for the number of GPUs.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

_ONLY_FOR_GPUS = re.compile(r"^(nvidia-(?!cuda-runtime(-cu\d+)?$)|cuda-|triton$|liger-kernel$|bitsandbytes$)")
_RUNTIME = re.compile(r"^libcudart\.so\.\d+$")
_PLACEHELD = re.compile(
    r"^lib(cublas|cublasLt|cudnn|cufft|cufile|cupti|curand|cusolver|cusparse|cusparseLt|nccl|nvrtc|nvshmem_host)\.so\.\d+$"
)
_MARK = "cuda_placeholders.txt"
"""File beside the placeholders with their names; programs read it to report an image for CPUs in a pod with GPUs."""
_WITHOUT_VERSION = {"libcufile": "cuFile", "libcusparseLt": "cusparseLt", "libnccl": "nccl", "libcudnn": "cudnn"}
"""Libraries without symbol versions, by the prefix of their symbols."""

_SOURCE = """#include <stdio.h>
#include <stdlib.h>
static void missing(const char *name) {
  fprintf(stderr, "%s: %s\\n", name, CALLED);
  abort();
}
"""
IN_AN_IMAGE = "this image was built for CPUs and has no GPU libraries; use the CUDA image of this stage"


def is_only_for_gpus(package: str) -> bool:
    """Return whether a CPU image omits this package."""
    return bool(_ONLY_FOR_GPUS.match(package))


def write(site_packages: Path, called: str = IN_AN_IMAGE) -> list[str]:
    """Create placeholders in torch's library folder, which is last in its search path, and return their names.

    Args:
        site_packages: where torch is installed.
        called: what a placeholder prints after the function's name when it is called, before it ends the process.
    """
    folder = site_packages / "torch" / "lib"
    libraries = sorted(folder.glob("*.so"))
    needed = {name for library in libraries for name in _needed(library)}
    if not needed:
        return []
    for runtime in site_packages.glob("nvidia/*/lib/libcudart.so.*"):
        if _RUNTIME.match(runtime.name) and runtime.name not in needed:
            raise SystemExit(f"torch requires another CUDA runtime than {runtime.name} in the lock; update the lock")
    undefined = {symbol for library in libraries for symbol in _undefined(library)}
    names = sorted(name for name in needed if _PLACEHELD.match(name))
    for name in names:
        _compile(folder / name, [symbol for symbol in undefined if _belongs(symbol, name)], called)
    (folder / _MARK).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return names


def remove(site_packages: Path) -> None:
    """Remove the placeholders before an environment changes: torch's package metadata does not list them."""
    for library in (site_packages / "torch" / "lib").glob("lib*.so.*"):
        if _PLACEHELD.match(library.name):
            library.unlink()
    (site_packages / "torch" / "lib" / _MARK).unlink(missing_ok=True)


def _belongs(symbol: tuple[str, str], library: str) -> bool:
    name, version = symbol
    if version:
        return version == library or (version == "NVSHMEM" and library.startswith("libnvshmem"))
    start = _WITHOUT_VERSION.get(library.partition(".")[0])
    return start is not None and name.startswith(start)


def _needed(library: Path) -> list[str]:
    return re.findall(r"\(NEEDED\).*\[(.+)\]", _output("readelf", "-dW", library))


def _undefined(library: Path) -> list[tuple[str, str]]:
    """Return the undefined symbols with their versions, without weak ones."""
    text = _output("nm", "-D", "--undefined-only", "--with-symbol-versions", library)
    found = re.findall(r"^\s+U (\S+)$", text, flags=re.MULTILINE)
    return [(name, version.lstrip("@")) for name, _, version in (symbol.partition("@") for symbol in found)]


def _compile(target: Path, symbols: list[tuple[str, str]], called: str) -> None:
    lines = [f'void {name}(void) {{ missing("{name}"); }}\n' for name, _ in sorted(symbols)]
    versions = sorted({version for _, version in symbols if version})
    exports = "".join(
        f"{version} {{ global: {' '.join(f'{name};' for name, of in sorted(symbols) if of == version)} }};\n"
        for version in versions
    )
    with tempfile.TemporaryDirectory() as scratch:
        source, script = Path(scratch, "placeholder.c"), Path(scratch, "exports")
        source.write_text(_SOURCE + "".join(lines), encoding="utf-8")
        script.write_text(exports, encoding="utf-8")
        options = ["-shared", "-Os", "-s", "-w", "-fPIC", "-fno-builtin", f"-Wl,-soname,{target.name}"]
        options.append(f"-DCALLED={json.dumps(called)}")
        with_versions = [f"-Wl,--version-script={script}"] if exports else []
        _output(_compiler(), *options, *with_versions, "-o", target, source)


def _compiler() -> str:
    for name in ("cc", "gcc"):
        if shutil.which(name):
            return name
    raise SystemExit("the build image has no C compiler: set BUILD_IMAGE to one that has, or build with ACCELERATOR=cuda")


def _output(*words: str | Path) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)  # noqa: S603 - words of our own
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, words[:2]))} failed: {done.stderr.strip()[-1000:]}")
    return done.stdout
