"""The small datasets that Keras downloads, as labeled files."""

import contextlib
import io
import sys
import zlib
from collections.abc import Iterator

from PIL import Image

from library.dataset.locations import MemoryLocation
from library.dataset.sources.base import LabeledFile
from library.errors import DataError, first_line
from library.tensorflow_import import set_up_keras

_FASHION = "T-shirt_top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
_CIFAR10 = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"
_CIFAR100 = (
    "apple,aquarium_fish,baby,bear,beaver,bed,bee,beetle,bicycle,bottle,bowl,boy,bridge,bus,"
    "butterfly,camel,can,castle,caterpillar,cattle,chair,chimpanzee,clock,cloud,cockroach,couch,"
    "crab,crocodile,cup,dinosaur,dolphin,elephant,flatfish,forest,fox,girl,hamster,house,kangaroo,"
    "keyboard,lamp,lawn_mower,leopard,lion,lizard,lobster,man,maple_tree,motorcycle,mountain,mouse,"
    "mushroom,oak_tree,orange,orchid,otter,palm_tree,pear,pickup_truck,pine_tree,plain,plate,poppy,"
    "porcupine,possum,rabbit,raccoon,ray,road,rocket,rose,sea,seal,shark,shrew,skunk,skyscraper,"
    "snail,snake,spider,squirrel,streetcar,sunflower,sweet_pepper,table,tank,telephone,television,"
    "tiger,tractor,train,trout,tulip,turtle,wardrobe,whale,willow_tree,wolf,woman,worm"
)
# Class names in the order of the labels, which Keras only documents.
KERAS_DATASETS = {
    "fashion_mnist": tuple(_FASHION.split(",")),
    "cifar10": tuple(_CIFAR10.split(",")),
    "cifar100": tuple(_CIFAR100.split(",")),
    "mnist": tuple("0123456789"),
}


def find_in_keras(name: str, split: str) -> Iterator[LabeledFile]:
    """Yield the labeled files of a Keras dataset: its test part for `test`, else the other part."""
    set_up_keras()
    from keras import datasets  # Imported late: it takes seconds.

    try:
        # Keras reports its download on stdout, where results belong.
        with contextlib.redirect_stdout(sys.stderr):
            parts = getattr(datasets, name).load_data()
    # The network and a damaged download make it raise anything.
    except Exception as error:
        raise DataError(f"keras.datasets.{name} can't be loaded: {first_line(error)}") from None
    images, labels = parts[1 if split == "test" else 0]
    for number, (image, label) in enumerate(zip(images, labels.reshape(-1), strict=True)):
        png = io.BytesIO()
        Image.fromarray(image).save(png, "PNG", compress_level=1)
        content = png.getvalue()
        text = KERAS_DATASETS[name][label]
        file = f"{text}/{number:05d}.png"
        location = MemoryLocation(content)
        yield LabeledFile(file, text, len(content), zlib.crc32(content), location)
