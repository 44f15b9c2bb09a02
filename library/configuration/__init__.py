"""YAML files and a command line become typed settings that know where each value came from.

In the order of their imports: `schema` (what a key is), `search_space` (what a search varies),
`yaml_parser` and `command_line` (what is written), `output` (what is shown), `resolution` (which
value counts), `reader` (all of it).
"""
