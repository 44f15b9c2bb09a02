"""What a clone keeps. A room imports only from rooms earlier in this order.

Ground floor, without TensorFlow: logging, errors, messages, files, limits, tensorflow_import.
Core: configuration, dataset and figures side by side, then inputs, augmentation, saving, models,
training, evaluation.
Leaves, which can be deleted: prediction, explaining, describing, machine, diagnosis, profiling,
reporting, comparing, serving, export, distributed, cleaning, cross_validation, robustness,
selection, tracking, search, beam, remote_runs, streaming.
"""
