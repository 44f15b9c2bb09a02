"""Facts about this machine: processor, memory, disks, packages, GPUs, TensorFlow's build.

They are dataclasses; `diagnosis` draws conclusions from them.
"""
