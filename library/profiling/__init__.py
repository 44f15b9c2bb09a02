"""Where the time of a training goes: a few seconds of it, stage by stage, and the bottleneck.

Builds on machine, describing (the stages of the inputs) and diagnosis (what speeds them up).
"""
