"""What the facts of `machine` mean for a training, and how fast it is: the command doctor.

The rules are functions from facts to findings, which read nothing themselves.
"""
