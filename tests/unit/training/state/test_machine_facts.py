"""What a fingerprint says of the machine and of how precisely it computes."""

import subprocess
import sys

import pytest
import torch

from trainerd.training.state.machine_facts import driver_version, machine_facts


class TwoCards:
    def count(self):
        return 2

    def name(self):
        return "NVIDIA H100 80GB HBM3"

    def driver(self):
        return "550.54.15"


def test_devices_their_number_and_driver_are_named():
    with torch.device("meta"):
        module = torch.nn.Linear(2, 1)
    facts = machine_facts({"model": module, "other": torch.nn.Linear(2, 1)}, TwoCards())
    assert facts | {"threads": 0} == {
        "device": "NVIDIA H100 80GB HBM3",
        "device_type": "cpu meta",
        "device_count": 2,
        "driver": "550.54.15",
        "threads": 0,
    }


def test_a_machine_without_devices_has_no_driver():
    facts = machine_facts({})
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert facts["device_count"] == 0
    assert facts["device_type"] == "none"
    assert "driver" not in facts


@pytest.mark.parametrize(
    ("content", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n",
            "550.54.15",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (root@x)\n",
            "580.95.05",
        ),
        ("NVRM version: something else\n", None),
        ("", None),
    ],
)
def test_the_driver_is_read_from_what_its_module_says(tmp_path, content, version):
    (tmp_path / "version").write_text(content)
    assert driver_version(tmp_path / "version") == version
    assert driver_version(tmp_path / "none") is None


SETTINGS = {
    "matmul_tf32": "torch.backends.cuda.matmul.allow_tf32 = True",
    "cudnn_tf32": "torch.backends.cudnn.allow_tf32 = False",
    "cudnn_deterministic": "torch.backends.cudnn.deterministic = True",
    "cudnn_enabled": "torch.backends.cudnn.enabled = False",
    "cudnn_benchmark": "torch.backends.cudnn.benchmark = True",
    "float32_matmul": "torch.set_float32_matmul_precision('medium')",
    "fp16_reduced_precision": "torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False",
    "bf16_reduced_precision": "torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False",
}

NEWER = [
    "torch.backends.cuda.matmul.fp32_precision = 'ieee'",
    "torch.backends.cudnn.conv.fp32_precision = 'tf32'",
    "torch.backends.cudnn.rnn.fp32_precision = 'ieee'",
]
"""The same by the newer interface: torch raises when the older one is asked then."""

LOOK = """
import torch
from trainerd.training.state.program_fingerprint import take_fingerprint
def look(): return take_fingerprint({}, seed=0, world_size=1)["precision"]
looks = [look()]
for lines in LINES:
    for line in lines:
        exec(line)
    looks.append(look())
    print(*sorted(name for name in looks[0] if looks[-1][name] != looks[-2][name]))
"""


def test_every_setting_that_changes_bits_is_in_the_fingerprint():
    has_newer = hasattr(torch.backends.cuda.matmul, "fp32_precision")
    lines = [[*SETTINGS.values()], NEWER if has_newer else []]
    code = f"LINES = {lines!r}\n{LOOK}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    by_the_older, by_the_newer = map(str.split, done.stdout.splitlines())
    assert set(by_the_older) == set(SETTINGS)
    assert not has_newer or {"matmul_tf32", "cudnn_tf32"} <= set(by_the_newer)
