"""YAML files and a command line become typed settings that know where each value came from."""
