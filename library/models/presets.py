"""Backbones of keras-hub by preset: what a preset says of itself, and its network with its weights.

A preset is a name of keras-hub's registry, `kaggle://…`, `hf://…` or a folder that `save_to_preset`
wrote. keras-hub is an optional package that takes seconds to import, so it is imported late.
"""

import contextlib
import inspect
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import yaml

from library.errors import SettingsError, UserError
from library.messages import did_you_mean
from library.models.blocks import BASE
from library.saving.keras_hub_backbones import keep_positions
from library.tensorflow_import import import_keras_hub

logger = logging.getLogger(__name__)

_DEFAULT_SIZE = (224, 224)
# What keras-hub's backbones call the shape of their images, and what they call that of the images
# that their position embeddings are for.
_IMAGE_SHAPES, _POSITIONS_SHAPE = ("image_shape", "input_shape"), "position_embedding_shape"
_MASK = "use_mask_token"
# Words in the names or texts of errors, which come from several packages: requests, httpx, ….
_UNREACHABLE = ("Connect", "Timeout", "resolve host", "gaierror", "LocalEntryNotFound", "Offline")
_FORBIDDEN = ("GatedRepo", "401 Client", "403 Client", "is not accessible", "Forbidden")
_FORMS = "kaggle://user/model/keras/variation, hf://user/model or a folder"
# How far from the highest token to look for the grid of patches: Swin halves it three times.
_MAX_HALVINGS = 5


@dataclass(frozen=True)
class Preset:
    """What a preset says of itself.

    Attributes:
        handle: As the settings name it.
        image_size: (height, width) of the images that it is for.
        scale: What to multiply pixels in [0, 255] by: a number, or one per channel.
        offset: What to add then.
        license: That of the weights.
        loader: What keras-hub loads it with.
    """

    handle: str
    image_size: tuple[int, int]
    scale: float | tuple[float, ...]
    offset: float | tuple[float, ...]
    license: str
    loader: Any


@cache
def read_preset(handle: str) -> Preset:
    """Return what a preset says of itself. Downloads a few small files.

    Raises:
        SettingsError: keras-hub is not installed, or there is no such preset of images.
        UserError: The preset can't be downloaded.
    """
    keras_hub = import_keras_hub("model preset")
    from keras_hub.src.utils import preset_utils

    with _explained(handle, keras_hub):
        for kind, names in preset_utils.BUILTIN_PRESETS_FOR_BACKBONE.items():
            if handle in names:
                _check_kind(handle, kind, keras_hub)
        # Its errors tell more than those of the next line, which takes any for a missing file.
        preset_utils.get_file(handle, preset_utils.CONFIG_FILE)
        loader = preset_utils.get_preset_loader(handle)
        _check_kind(handle, loader.check_backbone_class(), keras_hub)
        try:
            converter = keras_hub.layers.ImageConverter.from_preset(handle)
        except (FileNotFoundError, ValueError):
            converter = None
    if converter is None:
        logger.warning(
            f"the preset {handle} does not say how to scale pixels, so they are scaled to [0, 1]; "
            "if it was trained otherwise, save its ImageConverter to it"
        )
    shape = _own_config(loader).get("image_shape") or (None,)
    own_size = None if None in shape else tuple(shape[:2])
    return Preset(
        handle=handle,
        image_size=tuple(getattr(converter, "image_size", None) or own_size or _DEFAULT_SIZE),
        scale=_as_numbers(getattr(converter, "scale", 1 / 255), 1.0),
        offset=_as_numbers(getattr(converter, "offset", None), 0.0),
        license=_find_license(handle) or f"unknown, see {handle}",
        loader=loader,
    )


def load_backbone(preset: Preset, image_size: tuple[int, int]) -> keras.Model:
    """Return a preset's backbone with its weights, called BASE.

    Args:
        preset: The preset.
        image_size: (height, width) of the images. Position embeddings are interpolated to it.

    Raises:
        SettingsError: It can't take images of this size.
        UserError: The weights can't be downloaded.
    """
    height, width = image_size
    patch = _pair(_own_config(preset.loader).get("patch_size", 1))
    near = [max(1, round(size / edge)) * edge for size, edge in zip(image_size, patch, strict=True)]
    if near != [height, width]:
        raise SettingsError(
            f"the preset {preset.handle} takes images of whole patches of {patch[0]} x {patch[1]} "
            f"pixels, not {height} x {width}: use {_as_options(near)}"
        )
    kind = preset.loader.check_backbone_class()
    options: dict[str, Any] = {"name": BASE, "dtype": keras.config.dtype_policy().name}
    if _POSITIONS_SHAPE in inspect.signature(kind).parameters:
        if height != width:
            raise SettingsError(
                f"the preset {preset.handle} takes square images, not {height} x {width}: use "
                f"--image_size {height}"
            )
        # It interpolates them itself, from those that were trained.
        options["image_shape"] = (*image_size, 3)
    with _explained(preset.handle):
        backbone = preset.loader.load_backbone(kind, load_weights=True, **options)
    try:
        backbone = _at_size(backbone, image_size)
        images = keras.KerasTensor((None, *image_size, 3))
        backbone.compute_output_spec(keras.tree.map_structure(lambda _: images, backbone.input))
        return backbone
    except ValueError as error:
        raise SettingsError(
            f"the preset {preset.handle} can't take images of {height} x {width} pixels "
            f"({_first_sentence(error)}): use its own size, {_as_options(preset.image_size)}"
        ) from error


def find_patches(backbone: keras.Model, token_count: int) -> tuple[int, int, int]:
    """Return (other tokens, rows, columns) of a transformer's output.

    The other tokens, such as the class token, come before those of the patches.

    Args:
        backbone: A backbone with a patch size, for images of one size.
        token_count: Number of tokens that it returns.
    """
    height, width = tuple(keras.tree.flatten(backbone.input)[0].shape)[1:3]
    rows, columns = (
        n // e for n, e in zip((height, width), _pair(backbone.patch_size), strict=True)
    )
    for _ in range(_MAX_HALVINGS):
        if rows * columns <= token_count:
            break
        rows, columns = rows // 2, columns // 2
    return token_count - rows * columns, rows, columns


def _at_size(backbone: keras.Model, image_size: tuple[int, int]) -> keras.Model:
    """Return the backbone, or one for images of this size with its weights."""
    config = backbone.get_config()
    name = next(each for each in _IMAGE_SHAPES if each in config)
    own_size = tuple(config[name][:2])
    if own_size in ((None, None), image_size) and not config.get(_MASK):
        return backbone
    config[name] = (*image_size, 3)
    if _POSITIONS_SHAPE in config:
        # Otherwise each loading would interpolate from another size, and lose what was learned.
        config[_POSITIONS_SHAPE] = config[name]
    if _MASK in config:
        # It takes the place of patches in pretraining, and has no gradient elsewhere.
        config[_MASK] = False
    resized = type(backbone).from_config(config)
    patch = _pair(config.get("patch_size", 1))
    old_grid, new_grid = (
        (height // patch[0], width // patch[1]) for height, width in (own_size, image_size)
    )
    kept = [each for each in backbone.variables if each.name != "mask_token"]
    if len(kept) != len(resized.variables):
        raise ValueError("it has other weights for them")
    for old, new in zip(kept, resized.variables, strict=True):
        values = np.asarray(old)
        if values.shape != tuple(new.shape) and _POSITIONS_SHAPE in config:
            continue
        if values.shape != tuple(new.shape):
            values = interpolate_positions(values, old_grid, new_grid)
        new.assign(values)
    keep_positions(resized)
    return resized


def interpolate_positions(
    values: np.ndarray, old_grid: tuple[int, int], new_grid: tuple[int, int]
) -> np.ndarray:
    """Return position embeddings for another grid of patches.

    Bicubic, with antialiasing, as timm's `resample_abs_pos_embed` does it. Those of other tokens,
    which come first, stay as they are.

    Args:
        values: Position embeddings, (…, tokens, size).
        old_grid: (rows, columns) of patches in `values`.
        new_grid: (rows, columns) to return.

    Raises:
        ValueError: There are fewer tokens than patches.
    """
    others = values.shape[-2] - old_grid[0] * old_grid[1] if values.ndim > 1 else -1
    if others < 0:
        raise ValueError(f"weights of shape {values.shape} can't be interpolated")
    patches = values[..., others:, :].reshape(1, *old_grid, -1).astype(np.float32)
    patches = keras.ops.image.resize(patches, new_grid, interpolation="bicubic", antialias=True)
    patches = np.asarray(patches).reshape(*values.shape[:-2], -1, values.shape[-1])
    return np.concatenate([values[..., :others, :], patches], -2)


def _check_kind(handle: str, kind: type, keras_hub: Any) -> None:
    if not _is_for_images(kind, keras_hub):
        raise SettingsError(
            f"the preset {handle} is a {kind.__name__}, which computes no features of single "
            "images; choose one with an image backbone, such as dinov2_small"
        )


def _is_for_images(kind: type, keras_hub: Any) -> bool:
    models = keras_hub.models
    classified = {each.backbone_cls for each in models.ImageClassifier.__subclasses__()}
    return kind in classified or issubclass(kind, models.FeaturePyramidBackbone)


def _own_config(loader: Any) -> dict[str, Any]:
    """Return the configuration of the backbone, as keras-hub, Transformers or timm store it."""
    return loader.config.get("config", loader.config)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _as_options(size: Sequence[int]) -> str:
    height, width = size
    return f"--image_size {height}" + (f" --image_width {width}" if width != height else "")


def _as_numbers(value: Any, default: float) -> float | tuple[float, ...]:
    if value is None:
        return default
    return tuple(map(float, value)) if np.ndim(value) else float(value)


def _find_license(handle: str) -> str | None:
    """Return the license that a preset's metadata or its model card names."""
    from keras_hub.src.utils import preset_utils

    metadata = preset_utils.BUILTIN_PRESETS.get(handle, {}).get("metadata", {})
    if "://" not in handle and not Path(handle).is_dir():
        return metadata.get("license")
    # A server may be unreachable by now, a file missing or malformed.
    with contextlib.suppress(Exception), contextlib.redirect_stdout(sys.stderr):
        path = preset_utils.get_file(handle, preset_utils.README_FILE)
        _, front_matter, _ = Path(path).read_text(encoding="utf-8").split("---\n", 2)
        card = yaml.safe_load(front_matter)
        return str(card.get("license_name") or card["license"])
    return None


@contextlib.contextmanager
def _explained(handle: str, keras_hub: Any = None) -> Iterator[None]:
    """Raise what goes wrong with a preset as one line that says what to do."""
    # It warns of each of several attempts, for each file.
    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)
    try:
        # Progress is printed to stdout, which is for results.
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except UserError:
        raise
    except Exception as error:
        # Each server's package raises errors of its own.
        texts = [f"{type(each).__name__} {each}" for each in _chain(error)]
        problem, advice = _first_sentence(error), ""
        if any(text.startswith("RepositoryNotFound") for text in texts):
            problem, advice = "there is none, or none that HF_TOKEN has access to", ""
        elif any(word in text for text in texts for word in _FORBIDDEN):
            problem = "its weights are gated"
            advice = "; accept its terms on its page, and set HF_TOKEN or KAGGLE_API_TOKEN"
        elif any(word in text for text in texts for word in _UNREACHABLE):
            problem = "no connection to its server"
            advice = "; save it elsewhere by save_to_preset, and name the folder"
        elif "Unknown preset" in problem and keras_hub:
            known = [*_known_presets(keras_hub)]
            advice = did_you_mean(handle, known, f"it must be a name of keras-hub, {_FORMS}")
            raise SettingsError(f"unknown preset {handle}{advice}") from error
        elif keras_hub:
            raise SettingsError(
                f"cannot read the preset {handle}: {problem}; it must be a name of keras-hub, "
                f"{_FORMS}"
            ) from error
        raise UserError(f"cannot load the preset {handle}: {problem}{advice}") from error


def _known_presets(keras_hub: Any) -> Iterator[str]:
    """Yield the names of keras-hub's registry that have image backbones."""
    from keras_hub.src.utils.preset_utils import BUILTIN_PRESETS_FOR_BACKBONE

    for kind, presets in BUILTIN_PRESETS_FOR_BACKBONE.items():
        if _is_for_images(kind, keras_hub):
            yield from presets


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).split(". ")[0].rstrip(".")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
