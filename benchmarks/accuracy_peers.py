"""The peers of benchmarks/accuracy.py, run by the interpreter of an environment of their own.

Each trains on folders of images (train, validation, test; a folder for each class), takes no longer
than the budget that it is given, and prints its test metrics as JSON.
"""

import argparse
import copy
import json
import os
import time
from pathlib import Path


def yolo(options: argparse.Namespace) -> dict[str, float]:
    """Train Ultralytics' yolo11n-cls.yaml from scratch, with its defaults, in the wall time."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    from ultralytics import YOLO

    network = YOLO("yolo11n-cls.yaml")
    hours = options.wall / 3600
    fixed = {"device": "cpu", "pretrained": False, "plots": False, "amp": False, "exist_ok": True}
    # Its epochs follow from `time`; the smallest size that its strides divide is 32.
    network.train(
        data=str(options.images),
        time=hours,
        imgsz=32,
        batch=64,
        seed=options.seed,
        project=str(options.folder),
        name="yolo",
        **fixed,
    )
    result = network.val(data=str(options.images), split="test", imgsz=32, plots=False)
    return {"accuracy": float(result.top1)}


def resnet9(options: argparse.Namespace) -> dict[str, float]:
    """Train a ResNet-9 with the recipe of its DAWNBench entry, in the processor time.

    Page 2018, "How to train your ResNet": crops, flips, cutout, label smoothing, SGD with Nesterov
    momentum and a triangular learning rate, averaged weights. A fourth of its width, so that it is
    as large as the project's small networks; 28 pixels instead of 32.
    """
    import numpy as np
    import torch
    from PIL import Image
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(options.seed)
    torch.set_num_threads(len(os.sched_getaffinity(0)))

    def load(split: str) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = [], []
        for label, folder in enumerate(sorted((options.images / split).iterdir())):
            for path in sorted(folder.iterdir()):
                images.append(np.asarray(Image.open(path)))
                labels.append(label)
        pixels = torch.from_numpy(np.stack(images)).float()[:, None]
        return pixels / 127.5 - 1, torch.tensor(labels)

    def block(inputs: int, outputs: int, *, pools: bool = False) -> nn.Sequential:
        pooling = [nn.MaxPool2d(2)] if pools else []
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), *pooling)

    class Residual(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.blocks = nn.Sequential(block(width, width), block(width, width))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.blocks(x)

    (images, labels), (test_images, test_labels) = load("train"), load("test")
    classes, width = int(labels.max()) + 1, 16
    network = nn.Sequential(
        block(1, width),
        block(width, 2 * width, pools=True),
        Residual(2 * width),
        block(2 * width, 4 * width, pools=True),
        block(4 * width, 8 * width, pools=True),
        Residual(8 * width),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(8 * width, classes, bias=False),
    ).to(memory_format=torch.channels_last)
    averaged = copy.deepcopy(network).eval()
    # The published rates are for the sum of the losses of 512 images.
    batch, rate, decay = 64, 0.1, 5e-4
    optimizer = torch.optim.SGD(
        network.parameters(), rate, momentum=0.9, nesterov=True, weight_decay=decay
    )
    columns, random = torch.arange(28), torch.Generator().manual_seed(options.seed)

    def draw(count: int, low: int, high: int) -> torch.Tensor:
        return torch.randint(low, high, (count, 1), generator=random)

    def augment(pixels: torch.Tensor) -> torch.Tensor:
        count, padded = len(pixels), functional.pad(pixels, (2, 2, 2, 2), mode="reflect")
        rows, places = draw(count, 0, 5) + columns, draw(count, 0, 5) + columns
        places = torch.where(draw(count, 0, 2) > 0, places.flip(1), places)
        examples = torch.arange(count)[:, None, None]
        pixels = padded[examples, 0, rows[:, :, None], places[:, None]]
        y, x = columns - draw(count, 0, 21), columns - draw(count, 0, 21)
        hole = ((y >= 0) & (y < 8))[:, :, None] & ((x >= 0) & (x < 8))[:, None]
        return pixels.masked_fill(hole, 0.0)[:, None]

    def step(chosen: torch.Tensor, share: float, number: int) -> None:
        # The rate rises over the first fifth, and falls to 0.
        for group in optimizer.param_groups:
            group["lr"] = rate * min(share / 0.2, (1 - share) / 0.8)
        scores = network(augment(images[chosen]).contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(scores, labels[chosen], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        momentum = min(0.998, (1 + number) / (10 + number))
        with torch.no_grad():
            pairs = zip(averaged.state_dict().values(), network.state_dict().values(), strict=True)
            for mean, value in pairs:
                if mean.is_floating_point():
                    mean.lerp_(value, 1 - momentum)

    # The share of the budget that is used tells where in the schedule a step is.
    number = 0
    while (share := time.process_time() / options.cpu) < 1:
        order = torch.randperm(len(labels), generator=random)
        for chosen in order.split(batch):
            share = time.process_time() / options.cpu
            if share >= 1:
                break
            step(chosen, share, number)
            number += 1
    with torch.no_grad():
        right = averaged(test_images).argmax(1) == test_labels
    return {"accuracy": float(right.float().mean()), "epochs": number * batch / len(labels)}


PEERS = {"yolo": yolo, "resnet9": resnet9}


def main() -> None:
    """Train the peer that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wall", type=float, required=True, help="budget of seconds")
    parser.add_argument("--cpu", type=float, required=True, help="budget of processor seconds")
    options = parser.parse_args()
    print(json.dumps(PEERS[options.name](options)))


if __name__ == "__main__":
    main()
