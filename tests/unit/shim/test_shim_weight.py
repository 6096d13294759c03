"""The shim is light: one runs beside every attempt, for days."""

from __future__ import annotations

import subprocess
import sys

ALLOWED = ("trainerd", "trainerd.contract", "trainerd.errors", "trainerd.version", "trainerd.supervisor")


def test_the_shim_loads_the_standard_library_the_contract_and_itself_alone():
    code = (
        "import sys, trainerd.shim.__main__\n"
        "print(*(name for name in sys.modules"
        " if 'site-packages' in str(getattr(sys.modules[name], '__file__', ''))))\n"
        "print(*(name for name in sys.modules if name.startswith('trainerd')))\n"
        "print(*sys.modules)"
    )
    output = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True)
    foreign, ours, everything = (line.split() for line in output.stdout.split("\n")[:3])
    of_the_installation = ("trainerd", "_distutils_hack", "__editable__")
    assert [name for name in foreign if not name.startswith(of_the_installation)] == []
    allowed = [
        name for name in ours if name in ALLOWED or name.startswith(("trainerd.contract.", "trainerd.shim"))
    ]
    assert ours == allowed
    assert not {"asyncio", "subprocess", "logging", "socket", "threading"} & set(everything)
