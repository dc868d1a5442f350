"""The machine that figures hold for: processor, instruction sets, memory, versions."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


ISA = (  # spelled as Linux lists them; NEON is called asimd on 64-bit Arm
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "avx512_bf16"),
    *("neon", "asimd", "asimddp", "i8mm", "bf16", "sve"),
)
PACKAGES = (
    *("tensorflow", "tf_keras", "tensorflow-model-optimization", "numpy"),
    *("ai-edge-litert", "ai-edge-quantizer", "litert-quantizer"),
)


# The machine
def machine() -> dict[str, Any]:
    """The `machine` part of result.json: cpu, isa, id, cores (that this process may use), load_average, versions.

    load_average is that of this moment, over 1, 5 and 15 minutes: call it before the timing, which is a load itself.
    """
    return {
        "cpu": _cpu_name(_cpuinfo()),
        "isa": isa_of(_cpuinfo()),
        "id": machine_id(),
        "cores": cores(),
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "versions": versions(),
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_id() -> str:
    """8 hexadecimal digits that tell this machine from others: of its host name, processor and cores."""
    traits = [platform.node(), _cpu_name(_cpuinfo()), os.cpu_count()]
    return hashlib.sha256(json.dumps(traits).encode()).hexdigest()[:8]


def isa_of(cpuinfo: str) -> list[str]:
    """Which of `ISA` the first processor of a /proc/cpuinfo text has; [] where there is none (macOS)."""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    present = set(flags[1].split()) if flags else set()
    return [name for name in ISA if name in present]


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(isa_of(_cpuinfo())))


def versions() -> dict[str, str]:
    """Version of Python and of those of `PACKAGES` that are installed, by their names on the package index."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpuinfo() -> str:
    """Linux's description of its processors, or nothing."""
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def _cpu_name(cpuinfo: str) -> str:
    """The model name; Arm kernels give none, so the architecture stands in."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()
