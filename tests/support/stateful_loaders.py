"""Loaders that know their own position."""

import torch


class Positioned:
    """The position, in a state of its own."""

    def __init__(self):
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class AtMultiples(Positioned):
    """Stands at the end of a pass of four samples as it stands at the beginning of the next one."""

    def sample(self):
        return torch.tensor([float(self.at), 1.0]) / 32

    def __iter__(self):
        self.at += 1
        yield self.sample()
        while self.at % 4:
            self.at += 1
            yield self.sample()
