"""Run this project's commands on a folder of foreign images, and check what they make of it.

    python -m tests.suites.run FOLDER

README.md beside this file says what is checked.
"""

import argparse
import csv
import json
import math
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from library.dataset.manifest import read_manifest
from library.dataset.records import read_frames, read_record
from library.errors import printable
from tests.suites.decoders import DECIDED, decode_with_pillow, find_decoders, similarity

ROOT = Path(__file__).parents[2]
CLASSES = ("even", "odd")
# Rounded to six digits, as predict writes them.
LOSS_TOLERANCE = 1e-4


@dataclass
class Suite:
    """The files in a data set of two classes, and what was found about them.

    Attributes:
        work: Where everything is written.
        min_psnr: The least similarity of a stored image to Pillow's, in dB.
        sources: The foreign file behind each name in the data set.
        rejected: The reason of each rejected name.
        problems: What is wrong, in one line each.
    """

    work: Path
    min_psnr: float
    sources: dict[str, Path] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def copy(self, folder: Path, limit: int) -> None:
        """Make a data set of the folder's files: half of them in each class."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for number, path in enumerate(files[: limit or None]):
            name = f"{CLASSES[number % 2]}/{number:06d}_{path.name}"
            self.sources[name] = path
            target = self.work / "images" / "train" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        # Each class has images, whatever becomes of the foreign ones.
        for number in range(4):
            for split in ("train", "validation"):
                target = self.work / "images" / split / CLASSES[number % 2] / f"good_{number}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (32, 32), (60 * number, 90, 200)).save(target)

    def run(self, program: str, *arguments: object, codes: tuple[int, ...] = (0,)) -> str:
        """Run a program; return stdout and stderr. Note a traceback or a wrong exit code."""
        words = [str(each) for each in arguments]
        code, output = self.start(program, words)
        what = f"{program} {' '.join(words[:2])}"
        if "Traceback" in output:
            self.problems.append(f"{what}: traceback: {output.strip().splitlines()[-1]}")
        elif code not in codes:
            last = (output.strip().splitlines() or ["no output"])[-1]
            self.problems.append(f"{what}: exit code {code}: {last}")
        return output

    def start(self, program: str, words: list[str]) -> tuple[int, str]:
        """Run a program in a process of its own; return its exit code, and stdout and stderr."""
        command = [sys.executable, str(ROOT / program), *words]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False
        )
        return done.returncode, done.stdout + done.stderr

    def convert(self, *splits: str) -> None:
        """Convert and verify the splits, inspect the first, and compare the three."""
        for split in splits:
            # Full color and little loss: what is left of a difference is the decoding's.
            options = ["--max_bad_fraction", 0.9999, "--chroma", 444, "--quality", 100]
            data = ["--dataset_dir", self.work / "images" / split]
            data += ["--tfrecord_dir", self.work / "shards" / split]
            self.run("convert_dataset.py", *data, *options)
            self.run("convert_dataset.py", *data, "--verify")
        listed = self.work / "shards" / "train" / "train.rejected.csv"
        if listed.exists():
            with listed.open(encoding="utf-8", newline="") as file:
                self.rejected = {row["file"]: row["reason"] for row in csv.DictReader(file)}
        report = self.work / "inspection.html"
        output = self.run(
            "convert_dataset.py",
            "inspect",
            "--dataset_dir",
            self.work / "images" / "train",
            "--report",
            report,
        )
        count = next((line for line in output.splitlines() if line.startswith("unusable")), "none")
        if count != f"unusable files: {len(self.rejected):,}":
            self.problems.append(f"inspect says {count}, conversion rejected {len(self.rejected)}")

    def check_reasons(self) -> None:
        """Note the rejected files that another decoder reads."""
        for name, reason in self.rejected.items():
            if not reason or any(each in reason for each in DECIDED):
                continue
            if decoders := find_decoders(self.sources[name].read_bytes()):
                who = " and ".join(decoders)
                self.problems.append(f"{printable(name)}: {who} reads it, but it {reason}")

    def check_pixels(self) -> None:
        """Note the stored images that differ from Pillow's."""
        manifest = read_manifest(self.work / "shards" / "train", "train")
        for path in manifest.paths:
            with path.open("rb") as file:
                for _, content in read_frames(file, path):
                    record = read_record(content, str(path))
                    if record.filename in self.sources:
                        self._check_image(record.filename, record.encoded)

    def _check_image(self, name: str, encoded: bytes) -> None:
        expected = decode_with_pillow(self.sources[name].read_bytes())
        if expected is None:
            self.problems.append(f"{printable(name)}: stored, but Pillow can't read it")
            return
        psnr = similarity(encoded, expected)
        if psnr < self.min_psnr:
            self.problems.append(f"{printable(name)}: {psnr:.1f} dB from what Pillow shows")

    def train(self) -> None:
        """Train a tiny network, and compare what evaluate and predict say of the same images."""
        options = [
            "--run_dir",
            self.work / "run",
            "--model",
            "simple",
            "--image_size",
            16,
            "--batch_size",
            32,
        ]
        options += ["--data_dir", self.work / "shards"]
        self.run("run.py", *options, "--train_epochs", 1, "--no-report")
        self.run("run.py", "evaluate", *options, "--split", "train", "--bootstrap_samples", 0)
        written = self.work / "run" / "evaluation" / "train.json"
        output = self.run(
            "run.py",
            "predict",
            self.work / "images" / "train",
            *options,
            "--predict_format",
            "jsonl",
            "--top_k",
            len(CLASSES),
            codes=(0, 1, 3),
        )
        if not written.exists():
            self.problems.append(f"evaluate wrote no {written}")
            return
        evaluated = json.loads(written.read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in output.splitlines() if line.startswith('{"file"')]
        self._compare(lines, evaluated)

    def _compare(self, predictions: list[dict], evaluated: dict) -> None:
        losses, hits, refused = [], [], set()
        for line in predictions:
            name = str(Path(line["file"]).relative_to(self.work / "images" / "train"))
            if "error" in line:
                refused.add(name)
            elif name not in self.rejected:
                label = name.split("/")[0]
                probability = next(x["probability"] for x in line["top"] if x["class"] == label)
                losses.append(-math.log(max(probability, 1e-7)))
                hits.append(line["class"] == label)
        self.problems += [
            f"{name}: stored, but predict refuses it" for name in refused - {*self.rejected}
        ]
        if len(losses) != evaluated["images"]:
            count = evaluated["images"]
            self.problems.append(f"predict answers for {len(losses)} images, evaluate for {count}")
        elif abs(np.mean(losses) - evaluated["loss"]) > LOSS_TOLERANCE:
            self.problems.append(f"predict's loss is {np.mean(losses)}, not {evaluated['loss']}")
        elif np.mean(hits) != evaluated["accuracy"]:
            self.problems.append("predict and evaluate differ in accuracy")

    def train_unconverted(self) -> None:
        """Train on the files as they are: an unusable one is named; without them, it works."""
        images = self.work / "images"
        options = ["--data_format", "folder", "--data_dir", images, "--run_dir", self.work / "run2"]
        options += [
            "--model",
            "simple",
            "--image_size",
            16,
            "--batch_size",
            32,
            "--train_epochs",
            1,
            "--no-report",
        ]
        if self.rejected:
            output = self.run("run.py", *options, codes=(3,))
            last = (output.strip().splitlines() or [""])[-1]
            if not any(Path(name).name in last for name in map(printable, self.rejected)):
                self.problems.append(f"--data_format folder names no rejected file: {last}")
            for name in self.rejected:
                (images / "train" / name).unlink()
        self.run("run.py", *options, "--resume", "never")


def main(arguments: list[str] | None = None) -> int:
    """Check the folder that the arguments name; return 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, help="folder to write into, and keep")
    parser.add_argument("--limit", type=int, default=0, help="most files; 0: all")
    parser.add_argument("--min_psnr", type=float, default=28.0, help="in dB")
    parser.add_argument("--only_conversion", action="store_true", help="without any training")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        suite = Suite((options.work or Path(temporary)).resolve(), options.min_psnr)
        suite.copy(options.folder, options.limit)
        suite.convert("train", *([] if options.only_conversion else ["validation"]))
        suite.check_reasons()
        suite.check_pixels()
        if not options.only_conversion:
            suite.train()
            suite.train_unconverted()
    print(f"{len(suite.sources):,} files, {len(suite.rejected):,} of them rejected:")
    for name, reason in sorted(suite.rejected.items(), key=lambda each: each[1]):
        print(f"  {printable(name)} {printable(reason)}")
    print(f"{len(suite.problems):,} problems:")
    for problem in suite.problems:
        print(f"  {problem}")
    return 1 if suite.problems else 0


if __name__ == "__main__":
    sys.exit(main())
