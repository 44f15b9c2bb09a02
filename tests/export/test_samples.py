import numpy as np

from library.dataset.splits import read_splits
from library.export.samples import read_samples
from library.inputs.decoding import ImageFormat
from library.inputs.examples import make_source
from library.prediction.preprocess import Pictures
from project.inputs import EvaluationPipeline


def test_bytes_and_pixels_are_of_the_same_images(colors):
    image_format = ImageFormat(8, 3)
    test, train = (
        EvaluationPipeline(make_source(each), image_format, batch_size=16)
        for each in read_splits(colors, "test", "train")
    )
    samples = read_samples("test", test.source, test, train)
    assert (len(samples.encoded), len(samples.pixels), len(samples.calibration)) == (18, 18, 60)
    assert read_samples("test", test.source, test, None).calibration is None
    pictures = Pictures(image_format)
    for encoded, pixels in zip(samples.encoded, samples.pixels, strict=True):
        assert np.array_equal(pictures.pixels(encoded), pixels)
