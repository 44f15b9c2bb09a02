"""Presets of keras-hub with random weights, small enough to build in a second."""

import keras_hub
import numpy as np

LAYERS, MODELS = keras_hub.layers, keras_hub.models
# What a pixel is multiplied by, and what is added then: another number for each channel.
SCALE, OFFSET = [0.016, 0.017, 0.018], [-2.1, -2.0, -1.8]


def _resnet():
    return MODELS.ResNetBackbone([64], [3], [64, 8], [1, 1], [1, 2], "basic_block")


def _mobilenet():
    return MODELS.MobileNetBackbone(
        stackwise_expansion=[[8], [8]],
        stackwise_num_blocks=[1, 1],
        stackwise_num_filters=[[8], [8]],
        stackwise_kernel_size=[[3], [3]],
        stackwise_num_strides=[[2], [1]],
        stackwise_se_ratio=[[0.25], [None]],
        stackwise_activation=[["relu"], ["hard_swish"]],
        stackwise_padding=[[1], [1]],
        output_num_filters=16,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        squeeze_and_excite=0.5,
        last_layer_filter=16,
    )


def _vit():
    return MODELS.ViTBackbone((16, 16, 3), 4, 2, 2, 8, 16)


def _dinov2():
    return MODELS.DINOV2Backbone(
        patch_size=4,
        num_layers=2,
        hidden_dim=8,
        num_heads=2,
        intermediate_dim=16,
        num_register_tokens=2,
        image_shape=(16, 16, 3),
        position_embedding_shape=(24, 24),
    )


def _bert():
    return MODELS.BertBackbone(
        vocabulary_size=10, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=8
    )


FAMILIES = {
    "resnet": (_resnet, LAYERS.ResNetImageConverter),
    "mobilenet": (_mobilenet, LAYERS.MobileNetImageConverter),
    "vit": (_vit, LAYERS.ViTImageConverter),
    "dinov2": (_dinov2, LAYERS.DINOV2ImageConverter),
    "bert": (_bert, None),
}


def write_preset(family, folder):
    """Write a preset for images of 16 x 16 pixels as save_to_preset writes it. Return its path."""
    make, converter = FAMILIES[family]
    backbone, random = make(), np.random.default_rng(0)
    for each in backbone.weights:
        # Not 0 and 1, with which normalization would change nothing.
        if "float" in each.dtype:
            each.assign(each + np.abs(random.normal(0, 0.1, each.shape)))
    path = str(folder / family)
    backbone.save_to_preset(path)
    if converter:
        converter(image_size=(16, 16), scale=SCALE, offset=OFFSET).save_to_preset(path)
    return path
