"""YAML files and a command line become typed settings that know where each value came from.

In the order in which to read them: `schema` (what a key is), `yaml_parser` and `command_line` (what
is written), `reader` (which value counts), and `output` and `json_schema` (how keys and values are
shown).
"""
