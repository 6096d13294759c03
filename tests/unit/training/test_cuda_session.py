"""What only a CUDA device shows: its generators, scaled gradients on it, copies of its memory. (NCCL: tests
of ranks.)

CI has no device; docs/training-api.md says where and when they last ran.
"""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.support.in_process import disturbed, undisturbed
from trainerd.training.state.rng import capture_rng, restore_rng

pytestmark = [
    pytest.mark.torch,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_the_generator_of_every_device_is_restored():
    devices = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    for device in devices:
        torch.rand(3, device=device)
    state = capture_rng()
    assert len(state["cuda"]) == len(devices)
    expected = [torch.rand(5, device=device).tolist() for device in devices]
    restore_rng(state)
    assert [torch.rand(5, device=device).tolist() for device in devices] == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision_with_dropout_on_the_device_is_exact(tmp_path, dtype):
    def loop(session, tick):
        torch.use_deterministic_algorithms(True)
        model = nn.Sequential(nn.Linear(6, 32), nn.Dropout(0.3), nn.Linear(32, 1)).cuda()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler(
            "cuda", init_scale=2.0**40, growth_interval=3, enabled=dtype == torch.float16
        )
        session.track(model=model, optimizer=optimizer, scaler=scaler)
        data = TensorDataset(torch.linspace(0, 1, 132).reshape(22, 6))
        for _ in session.epochs(3):
            for (points,) in session.batches(DataLoader(data, 4, shuffle=True, pin_memory=True)):
                with torch.autocast("cuda", dtype=dtype):
                    loss = model(points.cuda(non_blocking=True)).float().pow(2).mean()
                optimizer.zero_grad()
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                session.log(loss=loss, noise=torch.rand((), device="cuda"))
                tick()

    try:
        expected = undisturbed(tmp_path / "left-alone", loop)
        assert disturbed(tmp_path / "struck", loop, (5, 9, 2)) == expected
    finally:
        torch.use_deterministic_algorithms(False)
