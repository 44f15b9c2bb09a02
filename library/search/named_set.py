"""The best hyperparameters as a named set, ready for hyperparameters.yaml."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from library.configuration.resolution import DEFAULT_SET, HELPER_PREFIXES
from library.configuration.yaml_parser import read_documents, to_yaml
from library.errors import SettingsError
from library.files import explain_write_errors, write_file
from library.messages import shown


def format_set(name: str, values: Mapping[str, Any], comment: str) -> str:
    """Return a set in YAML.

    Args:
        name: The set's name.
        values: Key → value.
        comment: One line to put before it.
    """
    lines = [f"  {key}: {to_yaml(value)}" for key, value in values.items()]
    return "\n".join([f"# {comment}", f"{to_yaml(name)}:", *lines]) + "\n"


def check_new_set(path: str | Path, name: str) -> None:
    """Raise SettingsError unless a set of this name can be added to a file."""
    sets = read_documents(path, max_documents=2)[-1].value or {}
    if name in sets or name == DEFAULT_SET:
        where = f"{path}:{sets[name].line}" if name in sets else str(path)
        raise SettingsError(f"write_set: {where} has a set {shown(name)}: choose another name")
    if name.startswith(HELPER_PREFIXES) or name == "<<":
        raise SettingsError(f"write_set: {shown(name)} is not a name of a set: choose another name")


def append_set(path: str | Path, name: str, text: str) -> None:
    """Append a set to a file of sets, whole or not at all; all that is there stays as it is.

    Args:
        path: The file.
        name: The set's name.
        text: The set, as `format_set` returns it.

    Raises:
        SettingsError: The file has such a set, or sets can't be appended to it.
        UserError: It can't be written.
    """
    check_new_set(path, name)
    # A link stays a link.
    path = Path(path).resolve()
    before = path.read_bytes()
    if before and not before.endswith(b"\n"):
        before += b"\n"
    added = f"\n{text}".encode()
    if b"\r\n" in before:
        added = added.replace(b"\n", b"\r\n")
    trial = path.with_name(f".{path.name}.new")
    try:
        write_file(trial, before + added)
        sets = read_documents(trial, max_documents=2)[-1].value
        if name not in sets:
            raise SettingsError(name)
    except SettingsError:
        raise SettingsError(
            f"write_set: a set can't be appended to {path}, because of its form: paste it by hand"
        ) from None
    finally:
        trial.unlink(missing_ok=True)
    with explain_write_errors(f"the set {name} in {path}"):
        write_file(path, before + added)
