"""The default recipe of `python -m train` for images, in PyTorch: the same network, initial kernels, optimizer, rates.

Written as PyTorch's users write it: eager, one step after the other, on tensors that are on the device.
"""

import time
from typing import Any, NamedTuple

from benchmarks.harness import torch_device
from train.config.sections import Config
from train.data import Dataset
from train.network.models import CNN
from train.network.view import View
from train.training.plan import make_plan


class Trained(NamedTuple):
    """The end of a run: on the test set, and the time of all steps."""

    accuracy: float
    loss: float
    seconds: float


def train(config: Config, dataset: Dataset) -> Trained:
    """Train the network of a configuration with adamw and one-cycle, in float32."""
    import torch
    from torch import nn

    torch.manual_seed(config.run.seed)
    plan, options, device = make_plan(config, dataset), config.optimizer, torch_device()
    assert isinstance(plan.model, CNN)
    assert (options.optimizer, options.schedule) == ("adamw", "one-cycle")
    images, labels, test_images, test_labels = (
        torch.from_numpy(array.copy()).to(device)
        for array in (dataset.train_inputs, dataset.train_labels, dataset.test_inputs, dataset.test_labels)
    )
    labels, test_labels = labels.long(), test_labels.long()
    loss_of = nn.CrossEntropyLoss(label_smoothing=options.label_smoothing)

    def trained(steps: int) -> tuple[Any, float]:
        model = _network(plan.model, images.shape[1:]).to(device)  # pyright: ignore[reportArgumentType]
        decaying, others = _by_decay(model)
        groups = [{"params": decaying}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, options.learning_rate, weight_decay=options.weight_decay)
        rates = {"total_steps": plan.steps, "pct_start": 0.2, "final_div_factor": 1e4, "cycle_momentum": False}
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.learning_rate, **rates)
        start = time.perf_counter()
        orders = [torch.randperm(len(images), device=device) for _ in range(plan.last_epoch)]
        for step in range(steps):
            epoch, batch = divmod(step, plan.steps_per_epoch)
            chosen = orders[epoch][batch * plan.batch_size : (batch + 1) * plan.batch_size]
            optimizer.zero_grad()
            loss_of(model(_seen(plan.model.view, images[chosen], training=True)), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return model, time.perf_counter() - start

    trained(min(3, plan.steps))  # what the first calls prepare is not timed, as our compilation is not
    model, seconds = trained(plan.steps)
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(_seen(plan.model.view, part)) for part in test_images.split(500)])
        accuracy = (logits.argmax(1) == test_labels).double().mean()
        return Trained(float(accuracy), float(nn.functional.cross_entropy(logits, test_labels)), seconds)


def _network(network: CNN, shape: tuple[int, ...]) -> Any:
    from torch import nn

    height, width, features = shape
    height, width = height - 2 * network.view.crop, width - 2 * network.view.crop
    layers: list[Any] = []
    for each in network.channels:
        layers += [_started(nn.Conv2d(features, each, 3, bias=False)), nn.BatchNorm2d(each), nn.ReLU(), nn.MaxPool2d(2)]
        height, width, features = (height - 2) // 2, (width - 2) // 2, each
    dense = nn.Linear(features * height * width, network.hidden, bias=False)
    layers += [nn.Flatten(), _started(dense), nn.BatchNorm1d(network.hidden), nn.ReLU()]
    return nn.Sequential(*layers, _started(nn.Linear(network.hidden, network.num_classes)))


def _started(layer: Any) -> Any:
    """The layer with Flax's initial kernel: normal with variance 1/n for n inputs, cut off at 2 standard deviations."""
    from torch import nn

    deviation = layer.weight[0].numel() ** -0.5 / 0.87962566103423978
    nn.init.trunc_normal_(layer.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _by_decay(model: Any) -> tuple[list[Any], list[Any]]:
    """The parameters that decay, and those of norms, which do not."""
    from torch import nn

    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    others = [p for norm in norms for p in norm.parameters()]
    return [p for p in model.parameters() if all(p is not other for other in others)], others


def _seen(view: View, images: Any, training: bool = False) -> Any:
    """The images as `View.of` prepares them, channels first."""
    x = images.permute(0, 3, 1, 2).float() / 255
    if view.deslant:
        x = _deslanted(x)
    if view.shift and training:
        x = _moved(x, view.shift)
    _, _, height, width = x.shape
    return x[:, :, view.crop : height - view.crop, view.crop : width - view.crop].contiguous()


def _moved(x: Any, furthest: int) -> Any:
    import torch

    n, _, height, width = x.shape
    padded = torch.nn.functional.pad(x, [furthest] * 4)
    first = torch.randint(2 * furthest + 1, (2, n, 1), device=x.device)
    rows, columns = (first[axis] + torch.arange(side, device=x.device) for axis, side in enumerate((height, width)))
    each = torch.arange(n, device=x.device)[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def _deslanted(x: Any) -> Any:
    import torch

    _, channels, height, width = x.shape
    down, across = (torch.arange(side, dtype=x.dtype, device=x.device) - (side - 1) / 2 for side in (height, width))
    brightness = x.sum(1)
    of_row = brightness.sum(2)
    down = down - (of_row @ down / of_row.sum(1).clamp(min=1e-30))[:, None]
    slant = ((brightness @ across) * down).sum(1) / (of_row * down**2).sum(1).clamp(min=1e-30)
    shift = slant[:, None] * down
    whole = shift.floor()
    column = torch.arange(width, device=x.device) + whole.long()[:, :, None]
    share = (shift - whole)[:, None, :, None]

    def at(column: Any) -> Any:
        inside = ((column >= 0) & (column < width))[:, None]
        places = column.clamp(0, width - 1)[:, None].expand(-1, channels, -1, -1)
        return torch.where(inside, x.gather(3, places), 0)

    return (1 - share) * at(column) + share * at(column + 1)
