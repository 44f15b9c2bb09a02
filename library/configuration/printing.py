"""A resolved model written as a YAML set that can be run from, each value with its provenance."""

from library.configuration.resolution import DEFAULT_SET
from library.configuration.scalars import yaml_value

# A value longer than this pushes its own comment to the right, not everybody's.
COMMENT_COLUMN = 48


def yaml_set(keys, values, title, remarks=()):
    """Give the text of a YAML file with the one set `default`.

    `values` are {key: Value}. Keys named in `remarks` are written as comments: shown, not set.
    """
    pairs = {}
    for key in keys:
        start = "  # " if key.name in remarks else "  "
        pairs[key.name] = f"{start}{key.name}: {yaml_value(values[key.name].value)}"
    width = max((len(pair) for pair in pairs.values() if len(pair) <= COMMENT_COLUMN), default=0)
    lines = [f"# {title}", f"{DEFAULT_SET}:"]
    for group in dict.fromkeys(key.group for key in keys):
        lines += ["", f"  # {group}"]
        for key in keys:
            if key.group == group:
                comment = _provenance(key, values[key.name])
                lines.append(f"{pairs[key.name].ljust(width)}  # {comment}")
    return "\n".join(lines) + "\n"


def _provenance(key, value):
    follows = f" (= {key.followed_words})" if key.follows and value.value is None else ""
    text = f"{value.provenance}{follows}"
    # A file's name may hold a line break, which would end the comment.
    return "".join(each if each.isprintable() else "?" for each in text)
