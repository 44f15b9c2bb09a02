"""Saving and loading of Keras, in half the time."""


def remember_attributes():
    """Let Keras know of each kind of layer which attributes hold no weights.

    Keras 3.15 keeps what it finds under one name and looks for it under another. So it makes a new
    layer for each layer that it saves or loads, which is half the work of either. Where Keras has
    no such names, it is left to itself.
    """
    try:
        from keras.src.backend.common import global_state
        from keras.src.saving.saving_lib import get_attr_skipset
    except ImportError:
        return
    for kind in ("Layer", "Functional", "Sequential"):
        name = f"saving_attr_skiplist_{kind}"
        if global_state.get_global_attribute(name) is None:
            global_state.set_global_attribute(name, get_attr_skipset(kind))
