"""PyTorch, eager or compiled, in either memory format."""

from collections.abc import Callable
from typing import Any

from benchmarks.harness import torch_device
from benchmarks.steps.data import data, starts


def pytorch(batch_size: int, channels_last: bool, compiled: bool = False) -> Callable[[], Any]:
    """As in its tutorials; returns the last loss."""
    import torch
    from torch import nn

    device = torch_device()
    images, labels = (torch.from_numpy(a).to(device) for a in data())
    layers = (
        *(nn.Conv2d(1, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1600, 256), nn.Linear(256, 10)),
    )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model: Any = nn.Sequential(*layers).to(device, memory_format=layout)  # pyright: ignore[reportCallIssue]
    optimizer, loss_of = torch.optim.Adam(model.parameters(), 1e-3), nn.CrossEntropyLoss()
    images, labels = images.permute(0, 3, 1, 2), labels.long()
    if compiled:
        torch.compiler.reset()  # else what is compiled for many shapes comes to a limit
        model = torch.compile(model, fullgraph=True, dynamic=False)

    def run() -> Any:
        loss = None
        for i in starts(batch_size):
            x = (images[i : i + batch_size].float() / 255).contiguous(memory_format=layout)
            optimizer.zero_grad()
            loss = loss_of(model(x), labels[i : i + batch_size])
            loss.backward()
            optimizer.step()
        return loss

    return run
