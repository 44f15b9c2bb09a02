"""Contenders that use PyTorch, in the peers' environment: a training step, inputs, a timm script.

They run beside no TensorFlow: with both in one process, today's versions end in a segmentation
fault.
"""

import os
import tempfile
import time
from collections.abc import Iterator

import torch
from torch import nn

from benchmarks.contender import share_of_epochs
from benchmarks.data import make_batches

CLASSES = 10
THREADS = len(os.sched_getaffinity(0))


def step(batch_size: str, steps: str) -> Iterator[int | None]:
    """Train the project's small network by a plain loop: eager, channels last."""
    torch.set_num_threads(THREADS)
    size = int(batch_size)
    data = make_batches((28, 28, 1), CLASSES, size)
    images, labels = torch.from_numpy(data[0]).permute(0, 3, 1, 2), torch.from_numpy(data[1])
    network = make_small().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, eps=1e-7)
    while True:
        yield
        for number in range(int(steps)):
            start = number * size % len(labels)
            batch = images[start : start + size].float() / 127.5 - 1
            scores = network(batch.contiguous(memory_format=torch.channels_last))
            loss = nn.functional.cross_entropy(scores, labels[start : start + size])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        float(loss.detach())
        yield int(steps)


def make_small() -> nn.Module:
    """Build project/networks/simple.py for images of 28 x 28 x 1."""
    layers: list[nn.Module] = []
    size, inputs, outputs = 28, 1, 32
    while size > 3:
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.MaxPool2d(2)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs, outputs, size = outputs, min(2 * outputs, 256), size // 2
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Dropout(0.5), nn.Linear(inputs * size * size, CLASSES)
    )


def dataloader(folder: str) -> Iterator[int | None]:
    """Read, crop, flip and batch with torchvision's ImageFolder and a DataLoader of two workers."""
    from torchvision import datasets, transforms

    prepare = transforms.Compose(
        [
            transforms.RandomResizedCrop(224, scale=(0.5, 1), ratio=(0.5, 1.5)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
    )
    images = datasets.ImageFolder(folder, prepare)
    loader = torch.utils.data.DataLoader(
        images, batch_size=32, shuffle=True, num_workers=2, persistent_workers=True
    )
    while True:
        yield
        for _ in loader:
            pass
        yield len(images)


def timm_frozen(folder: str, epochs: str, timed_epochs: str) -> Iterator[float | None]:
    """Train a new head on a frozen MobileNetV2 of timm, the base in every epoch.

    All epochs do the same work, so that a few are measured and stand for the others.
    """
    import timm
    from torchvision import datasets, transforms

    torch.set_num_threads(THREADS)
    network = timm.create_model("mobilenetv2_100", pretrained=False, num_classes=5)
    network.requires_grad_(False)
    network.get_classifier().requires_grad_(True)
    prepare = transforms.Compose([transforms.Resize((224, 224)), transforms.ToTensor()])
    loaders = {
        split: torch.utils.data.DataLoader(
            datasets.ImageFolder(f"{folder}/{split}", prepare),
            batch_size=32,
            shuffle=split == "train",
            num_workers=2,
        )
        for split in ("train", "validation")
    }
    optimizer = torch.optim.Adam(network.get_classifier().parameters(), 1e-2)
    yield
    times = [time.perf_counter()]
    for _ in range(int(timed_epochs)):
        # The base stays in evaluation mode, as in the other contenders.
        network.eval()
        for images, labels in loaders["train"]:
            loss = nn.functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            correct = sum(
                int((network(images).argmax(1) == labels).sum())
                for images, labels in loaders["validation"]
            )
        print("correct on validation:", correct)
        times.append(time.perf_counter())
    yield share_of_epochs(times, int(epochs))


def ultralytics_frozen(folder: str, epochs: str, timed_epochs: str) -> Iterator[float | None]:
    """Train the head of Ultralytics' smallest classifier on its frozen base, at 224 pixels."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    from ultralytics import YOLO

    network = YOLO("yolo11n-cls.yaml")
    yield
    times = [time.perf_counter()]
    network.add_callback("on_fit_epoch_end", lambda trainer: times.append(time.perf_counter()))
    with tempfile.TemporaryDirectory() as project:
        # Its last layer is number 10. It looks for validation images in `val`.
        network.train(
            data=folder,
            epochs=int(timed_epochs),
            imgsz=224,
            batch=32,
            workers=2,
            freeze=10,
            device="cpu",
            pretrained=False,
            plots=False,
            project=project,
        )
    yield share_of_epochs(times[: int(timed_epochs) + 1], int(epochs))
