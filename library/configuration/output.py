"""A resolved model written as a YAML set that can be run from, each value with its provenance."""

from library.configuration.resolution import DEFAULT_SET
from library.configuration.scalars import yaml_value
from library.configuration.schema import keys_of

# A value longer than this pushes its own comment to the right, not everybody's.
COMMENT_COLUMN = 48


def yaml_set(keys, values, title, remarks=()):
    """Return the text of a YAML file with the one set `default`.

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


HEAD = """\
# Settings

<!-- Written by the command below; a test compares. Edit the models, not this file. -->

    {command}

## Where a value comes from

The last of these that names a key decides:

1. the default in the tables below;
2. the set `default` of the file;
3. the chosen set (`--config_set`, `--hyperparameter_set`), with what it inherits;
4. the command line.

`--print_config` prints every value with the file, line and set that it comes from, as a file that
can be run from; `--list_sets` prints the sets; `--help` the values that hold now.

## The two files

A file is a mapping of named sets. A set inherits from another by YAML's anchors and merge keys:

```yaml
default: &default
  batch_size: 128

.small: &small          # no set: its name begins with a dot (or x-). A place for shared keys.
  image_size: 64

laptop:
  <<: [*small, *default]   # the first one named wins; keys of the set itself win over both
  train_epochs: 10
```

All sets are checked, chosen or not, so that a slip shows when it is made. The files are read as
YAML 1.2: `1e-4` is a number and `no` is text. A key given twice, an unknown key, a tag, or a value
of another type is refused, with its line. `null` or `none` is no value. A `hyperparameter_file`
named in a file lies beside that file; every other path is seen from the working folder.

## The command line

Every key is an option: `--name value` or `--name=value`, with hyphens or underscores, never
abbreviated, given once. A flag is turned on by `--name` and off by `--no-name`. A list is written
with commas: `a,b`. No value is `none`.

"""


def reference(command, parts):
    """Return the Markdown. `parts` are (heading, model); `command` is the one that writes it."""
    lines = [HEAD.format(command=command)]
    for heading, model in parts:
        lines += [f"## {heading}", ""]
        keys = keys_of(model)
        for group in dict.fromkeys(key.group for key in keys):
            lines += [f"### {group}", "", "| key | short | default | value | meaning |"]
            lines.append("| --- | --- | --- | --- | --- |")
            lines += [_row(key) for key in keys if key.group == group]
            lines.append("")
    return "\n".join(lines)


def _meaning(key):
    also = f" (also `{'`, `'.join(key.also)}`)" if key.also else ""
    return key.meaning + also


def _row(key):
    short = f"`-{key.short}`" if key.short else ""
    follows_another = key.default is None and key.follows
    default = key.followed_words if follows_another else yaml_value(key.default)
    cells = (f"`{key.name}`", short, f"`{default}`", key.expected, _meaning(key))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
