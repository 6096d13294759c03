"""What is saved in the benchmark: a ResNet-18 and Adam's state of it, made as wide as the size asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

WIDTHS = {"140MB": 64, "500MB": 121, "2GB": 242}
"""Channels of the first stage; 64 is the ResNet-18 that everybody knows."""

IMAGE_SIDES = {"140MB": 64, "500MB": 32, "2GB": 32}
BATCHES = {"140MB": 8, "500MB": 4, "2GB": 2}


class Block(nn.Module):
    """Two convolutions and a way around them: https://arxiv.org/abs/1512.03385, figure 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.around: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.around = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.bn1(self.conv1(images)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.around(images))


def resnet18(width: int) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 7, 2, 3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    channels = width
    for stage in range(4):
        outputs = width << stage
        layers += [Block(channels, outputs, 1 if stage == 0 else 2), Block(outputs, outputs, 1)]
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


@dataclass
class Training:
    """A model in training.

    Attributes:
        objects: What is saved, by name.
        step: Makes one training step.
    """

    objects: dict[str, Any]
    step: Callable[[], None]

    def state(self) -> dict[str, Any]:
        return {name: value.state_dict() for name, value in self.objects.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return every tensor of the state under a flat name, as a tensor library wants it."""
        state = self.state()
        flat = {f"model.{key}": tensor for key, tensor in state["model"].items()}
        for index, entries in state["optimizer"]["state"].items():
            flat |= {f"optimizer.{index}.{key}": tensor for key, tensor in entries.items()}
        return flat


def make_training(size: str) -> Training:
    torch.manual_seed(0)
    model = resnet18(WIDTHS[size])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    side, batch = IMAGE_SIDES[size], BATCHES[size]
    images, targets = torch.randn(batch, 3, side, side), torch.randint(0, 1000, (batch,))

    def step() -> None:
        loss = functional.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return Training({"model": model, "optimizer": optimizer}, step)
