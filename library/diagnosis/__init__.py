"""What this machine can do for a training, and why its GPU is not used: the command doctor.

Facts (machine, packages, nvidia, gpu_facts, speed) are dataclasses; the rules turn them into
findings and read nothing themselves.
"""
