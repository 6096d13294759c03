"""Ways to train on a device, each bit-equal over a drain and over kills.

What CI can run of them it runs on the CPU; docs/cuda.md says what ran on which device.
"""

import pytest
import torch

from tests.gpu.on_devices import DEVICES, ON_CUDA, check_exact, network, plain_step

pytestmark = [pytest.mark.torch, pytest.mark.timeout(300)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "options",
    [{"fused": True}, pytest.param({"capturable": True}, marks=ON_CUDA), {"foreach": True}],
    ids=["fused", "capturable", "foreach"],
)
def test_optimizers_of_every_implementation(tmp_path, device, options):
    if "capturable" in options and device == "cpu":
        pytest.skip("a capturable optimizer needs a device")

    def make(device):
        model = network(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, **options)
        return {"model": model, "optimizer": optimizer}, plain_step(model, optimizer)

    check_exact(tmp_path, make, device)


@pytest.mark.parametrize("device", DEVICES)
def test_a_scaler_that_skips_some_steps_and_not_all(tmp_path, device):
    """It begins at a scale that overflows, halves it in each step that does, and then trains."""
    skipped = []

    def make(device):
        model = network(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler(device, init_scale=2.0**18, growth_interval=3)

        def step(batch):
            optimizer.zero_grad()
            half = [parameter.detach().half().requires_grad_() for parameter in model.parameters()]
            hidden = torch.relu(batch.half() @ half[0].t() + half[1])
            loss = (hidden @ half[2].t() + half[3]).float().pow(2).mean()
            scaler.scale(loss).backward()
            for parameter, other in zip(model.parameters(), half, strict=True):
                parameter.grad = other.grad.float()
            before = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            skipped.append(scaler.get_scale() < before)
            return loss

        return {"model": model, "optimizer": optimizer, "scaler": scaler}, step

    check_exact(tmp_path, make, device)
    assert any(skipped)
    assert not all(skipped)


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_to_bf16(tmp_path, device):
    def make(device):
        model = network(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        plain = plain_step(model, optimizer)

        def step(batch):
            with torch.autocast(device, dtype=torch.bfloat16):
                return plain(batch)

        return {"model": model, "optimizer": optimizer}, step

    check_exact(tmp_path, make, device)


@pytest.mark.parametrize("device", DEVICES)
def test_weights_in_bf16(tmp_path, device):
    def make(device):
        model = network(device, dtype=torch.bfloat16)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        step = plain_step(model, optimizer)
        return {"model": model, "optimizer": optimizer}, lambda batch: step(batch.bfloat16())

    check_exact(tmp_path, make, device)


@pytest.mark.parametrize("device", DEVICES)
def test_channels_last(tmp_path, device):
    def make(device):
        layers = [
            torch.nn.Conv2d(1, 4, 2),
            torch.nn.BatchNorm2d(4),
            torch.nn.Flatten(),
            torch.nn.Linear(8, 1),
        ]
        model = torch.nn.Sequential(*layers).to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        step = plain_step(model, optimizer)

        def on_images(batch):
            return step(batch.view(4, 1, 2, 3).contiguous(memory_format=torch.channels_last))

        return {"model": model, "optimizer": optimizer}, on_images

    check_exact(tmp_path, make, device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_loop_on_a_stream_of_its_own(tmp_path):
    """What is saved and logged comes from the current stream, not from the default one."""

    def make(device):
        model = network(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        plain, stream = plain_step(model, optimizer), torch.cuda.Stream()

        def step(batch):
            stream.wait_stream(torch.cuda.current_stream())
            torch.cuda.set_stream(stream)  # and stays: the boundary comes on it
            return plain(batch)

        return {"model": model, "optimizer": optimizer}, step

    default = torch.cuda.default_stream()
    try:
        check_exact(tmp_path, make, "cuda")
    finally:
        torch.cuda.set_stream(default)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_step_in_a_cuda_graph(tmp_path):
    def make(device):
        model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)).to(
            device
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, capturable=True)
        plain, batch_in_graph = plain_step(model, optimizer), torch.zeros(4, 6, device=device)
        graphs = []

        def step(batch):
            batch_in_graph.copy_(batch)
            if not graphs and session_steps[0] > 2:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    loss = plain(batch_in_graph)
                graphs.append((graph, loss))
            session_steps[0] += 1
            if not graphs:
                return plain(batch_in_graph)
            graphs[0][0].replay()
            return graphs[0][1]

        session_steps = [0]
        return {"model": model, "optimizer": optimizer}, step

    check_exact(tmp_path, make, "cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_model_compiled_to_cuda_graphs(tmp_path):
    """Its loss lies in memory that the next step overwrites."""

    def make(device):
        model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)).to(
            device
        )
        compiled = torch.compile(model, mode="reduce-overhead")
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
        plain = plain_step(compiled, optimizer)

        def step(batch):
            torch.compiler.cudagraph_mark_step_begin()
            return plain(batch)

        return {"model": model, "optimizer": optimizer}, step

    check_exact(tmp_path, make, "cuda")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_a_model_on_two_devices_of_one_process(tmp_path):
    class OnTwo(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Dropout(0.3)).to("cuda:0")
            self.second = torch.nn.Sequential(torch.nn.Dropout(0.3), torch.nn.Linear(16, 1)).to("cuda:1")

        def forward(self, batch):
            return self.second(self.first(batch).to("cuda:1"))

    def make(_):
        model = OnTwo()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        return {"model": model, "optimizer": optimizer}, plain_step(model, optimizer)

    check_exact(tmp_path, make, "cuda")
