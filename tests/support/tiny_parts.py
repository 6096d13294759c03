"""Parts of tiny training scripts."""

from __future__ import annotations

import torch
from torch import nn


class Momentum:
    """Gradient descent with momentum, without the second that the first use of torch.optim takes."""

    def __init__(self, model: nn.Module, lr: float) -> None:
        self.parameters = dict(model.named_parameters())
        self.velocities = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        self.lr = lr

    def zero_grad(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for name, parameter in self.parameters.items():
            self.velocities[name].mul_(0.9).add_(parameter.grad)
            parameter.sub_(self.velocities[name], alpha=self.lr)

    def state_dict(self) -> dict[str, object]:
        return {"lr": self.lr, "velocities": self.velocities}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.lr, self.velocities = state["lr"], state["velocities"]
