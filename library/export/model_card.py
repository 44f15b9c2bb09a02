"""The model card that travels with an export: what it is, how good, and how to call it."""

from library.errors import printable
from library.export.bytes_to_pixels import LIMITS
from library.messages import counted, counted_classes
from library.models.scores import is_multi_label

_CLASSES_SHOWN = 20
_FILES = {
    "saved_model": (
        "saved_model.pb",
        "SavedModel. Signature `serving_default`: `image_bytes` (strings: whole files, JPEG, PNG, "
        "BMP or GIF) → `classes` and `probabilities`, likeliest first. Signature `pixels`: "
        "`pixels` (uint8, {shape}) → the same.",
    ),
    "litert": ("model.tflite", "LiteRT, float32: {pixels}"),
    "litert_float16": ("model_float16.tflite", "LiteRT, float16 weights: {pixels}"),
    "litert_int8": (
        "model_int8.tflite",
        "LiteRT, 8-bit integers, calibrated on training images: pixels (uint8, {shape}) → "
        "probabilities (float32, in the order of `classes.txt`).",
    ),
    "onnx": ("model.onnx", "ONNX: {pixels}"),
}
_EMBEDDING = (
    "Both signatures give `embedding`, too: float32, a row an image, what the last layer makes its "
    "scores of. Images alike have alike ones: compare them by their cosine."
)
_SEVERAL = (
    "An image may show several of them, or none: each class whose probability is 0.5 or more. The "
    "probabilities don't add up to 1."
)
_PIXELS = "pixels in 0 to 255 (float32, {shape}) → probabilities (in the order of `classes.txt`)."


def write_card(snapshot, path, compared, samples, temperature=None, *, embedding=False):
    """Return the text of README.md, Markdown.

    `path` is the numbered folder that it will lie in; `compared` says of each format how far it is
    from the snapshot on the images `samples`. `embedding`: whether a SavedModel gives that, too.
    """
    name, version = path.parent.name, path.name
    parts = [
        f"# {name}, version {version}",
        f"Tells which of {counted_classes(len(snapshot.classes))} an image shows: "
        f"{_classes(snapshot)}.",
        _SEVERAL if is_multi_label(snapshot.network) else "",
        _origin(snapshot),
        "License: not stated. Say here who may use this network, and for what; its data and the "
        "weights that it began with may have terms of their own.",
        "## Files",
        _files(snapshot, compared),
        _EMBEDDING if embedding else "",
        "`classes.txt` and `classes.json`: the class names in label order. `hashes.json`: the "
        "SHA-256 of each file.",
        "Each was loaded again and compared with the snapshot on "
        f"{counted(len(samples.pixels), 'image')} of the {samples.split} split:",
        _comparison(compared, "classes" if is_multi_label(snapshot.network) else "class"),
        "## How good",
        _metrics(snapshot, temperature),
        "## Data",
        _data(snapshot),
        "## Preparation",
        _preparation(snapshot, temperature),
        "## Calling it",
        _calls(name, version, compared),
    ]
    return "\n\n".join(each for each in parts if each) + "\n"


def _classes(snapshot):
    shown = ", ".join(printable(each) for each in snapshot.classes[:_CLASSES_SHOWN])
    return shown + (", …" if len(snapshot.classes) > _CLASSES_SHOWN else "")


def _files(snapshot, compared):
    shape = f"(n, {', '.join(map(str, snapshot.network.input_shape[1:]))})"
    pixels = _PIXELS.format(shape=shape)
    rows = [
        f"- `{file}`: {text.format(shape=shape, pixels=pixels)}"
        for file, text in (_FILES[name] for name in compared)
    ]
    return "\n".join(rows)


def _origin(snapshot):
    """Say what it was made from, as a paragraph and perhaps a list."""
    members = snapshot.members or (snapshot,)
    size = f"{snapshot.network.count_params():,} parameters"
    if len(members) == 1:
        text = f"Made from {_told(members[0])}, {size}."
    else:
        text = (
            f"Gives the mean of the probabilities of {len(members)} networks, {size} together:\n\n"
            + "\n".join(f"- {_named(each)}: {_told(each)}" for each in members)
        )
    if snapshot.views == 1:
        return text
    return (
        f"{text}\n\nEach image is looked at in {snapshot.views} views (itself, its mirror image, "
        "then crops), and the answer is the mean of their probabilities."
    )


def _told(member):
    return (
        f"the snapshot of epoch {member.metrics.get('epoch', '?')} (step "
        f"{member.metrics.get('step', '?')}) of the network `{member.network.name}`"
    )


def _named(member):
    return f"`{printable(member.folder)}`"


def _comparison(compared, word):
    rows = [
        f"| {name} | {each['difference']:.1e} | {each['agreement']:.1%} |"
        for name, each in compared.items()
    ]
    head = f"| format | largest difference of a probability | same {word} |\n| --- | --- | --- |\n"
    return head + "\n".join(rows)


def _metrics(snapshot, temperature):
    if snapshot.members:
        return _metrics_of_members(snapshot, temperature)
    if not (shown := _measures(snapshot)):
        return "Not measured."
    return (
        f"On the validation split, by which the snapshot was chosen: {shown}. The test split says "
        "how good it is on images that chose nothing: `python run.py evaluate`."
    )


def _metrics_of_members(snapshot, temperature):
    changes = [
        words
        for words, is_so in (
            ("several networks", len(snapshot.members) > 1),
            ("several views", snapshot.views > 1),
            ("a temperature", temperature is not None),
        )
        if is_so
    ]
    rows = [f"- {_named(each)}: {_measures(each) or 'not measured'}" for each in snapshot.members]
    return (
        f"As it is here, with {' and '.join(changes)}, it was not measured. Each snapshot by "
        "itself, on the validation split by which it was chosen:\n\n" + "\n".join(rows) + "\n\n"
        "`python run.py evaluate`, with the same `--ensemble` and `--tta`, measures it on the test "
        "split, whose images chose nothing."
    )


def _measures(member):
    measures = member.metrics.get("validation", {})
    return ", ".join(f"{name} {value:.4f}" for name, value in measures.items())


def _data(snapshot):
    """Tell of the training images; where members learned from different ones, of each."""
    members = snapshot.members or (snapshot,)
    if len({each.data.get("fingerprint") for each in members}) == 1:
        return _data_of(members[0])
    return "\n\n".join(f"{_named(each)}: {_data_of(each)}" for each in members)


def _data_of(snapshot):
    counts = snapshot.data.get("class_counts", {})
    if not counts:
        return "The snapshot does not tell what it learned from."
    names = list(counts)[:_CLASSES_SHOWN]
    rows = [
        f"| {printable(name).replace('|', chr(92) + '|')} | {counts[name]:,} |" for name in names
    ]
    more = f"\n\n… and {len(counts) - len(names):,} more." if len(counts) > len(names) else ""
    return (
        f"{counted(snapshot.data['examples'], 'training image')} (fingerprint "
        f"`{str(snapshot.data['fingerprint'])[:16]}`).\n\n"
        "| class | training images |\n| --- | --- |\n" + "\n".join(rows) + more
    )


def _cell(name):
    return printable(name).replace("|", r"\|")


def _preparation(snapshot, temperature):
    _, height, width, channels = snapshot.network.input_shape
    options = snapshot.image_options
    longest = f"shrunk to {options.max_edge} pixels an edge, " if options.max_edge else ""
    lines = [
        f"An image is turned as its Exif says, laid on the background {options.background}, "
        f"{longest}and squeezed to {width} x {height} pixels, {counted(channels, 'channel')}. "
        "Scaling of the values is part of the network."
    ]
    if temperature is not None:
        lines.append(
            f"Scores are divided by the temperature {temperature:.4f}, fitted on the validation "
            "split, so that probabilities say how often they are right."
        )
    return "\n".join([*lines, "", *(f"- {each}" for each in LIMITS)])


def _calls(name, version, compared):
    texts = []
    if "saved_model" in compared:
        texts.append(
            "TensorFlow Serving, from the folder above this one:\n\n"
            "```sh\n"
            f'docker run -p 8501:8501 -v "$PWD:/models/{name}" -e MODEL_NAME={name} '
            "tensorflow/serving\n"
            f'curl -d "{{\\"instances\\": [{{\\"b64\\": \\"$(base64 -w0 image.jpg)\\"}}]}}" '
            f"localhost:8501/v1/models/{name}:predict\n"
            "```\n\n"
            "Python:\n\n"
            "```python\n"
            "import tensorflow as tf\n"
            f'serve = tf.saved_model.load("{version}").signatures["serving_default"]\n'
            'answer = serve(image_bytes=tf.constant([open("image.jpg", "rb").read()]))\n'
            'print(answer["classes"][0, 0].numpy(), answer["probabilities"][0, 0].numpy())\n'
            "```"
        )
    for each in compared:
        if each.startswith("litert"):
            texts.append(
                f"LiteRT ({each}): `ai_edge_litert.interpreter.Interpreter"
                f'(model_path="{_FILES[each][0]}")`.'
            )
        if each == "onnx":
            texts.append('ONNX: `onnxruntime.InferenceSession("model.onnx")`.')
    return "\n\n".join(texts)
