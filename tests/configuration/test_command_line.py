"""Options made from keys."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.configuration.command_line import Command, parse, read_options
from library.configuration.schema import Count, Keys, Positive, Text, Words, key, keys_of
from library.errors import SettingsError
from tests.configuration.test_resolution import Bakery

COMMANDS = {"bake": Command("bake bread"), "sell": Command("sell loaves", "LOAF...")}


class Shop(Bakery):
    """Shop"""

    learning_rate: Positive = key(0.1, "how fast", "lr")
    num_shops: Count = key(1, "shops", "ns")
    fine_tuning: bool = key(False, "by hand", "ft")


def values(*arguments):
    given = parse(arguments, keys_of(Shop), COMMANDS).values
    assert {each.provenance for each in given.values()} <= {"command line"}
    return {name: each.value for name, each in given.items()}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--learning_rate 1e-4", {"learning_rate": 1e-4}),
        ("--learning_rate=1e-4", {"learning_rate": 1e-4}),
        ("--learning-rate 1e-4", {"learning_rate": 1e-4}),
        ("-lr 2", {"learning_rate": 2.0}),
        ("-lr=.5", {"learning_rate": 0.5}),
        ("--fine_tuning", {"fine_tuning": True}),
        ("-ft", {"fine_tuning": True}),
        ("--no-fine-tuning", {"fine_tuning": False}),
        ("--no_fine_tuning", {"fine_tuning": False}),
        ("--fine-tuning=false", {"fine_tuning": False}),
        ("--fine-tuning=True", {"fine_tuning": True}),
        ("--extras a,b=2", {"extras": ("a", "b=2")}),
        ("--extras=a,b", {"extras": ("a", "b")}),
        ("--extras=", {"extras": ()}),
        ("--extras none", {"extras": ()}),
        ("--ovens none", {"ovens": None}),
        ("--sign NONE", {"sign": None}),
        ("--sign null", {"sign": None}),
        ("--town none", {"town": "none"}),
        ("--town 1e-4", {"town": "1e-4"}),
        ("--town -", {"town": "-"}),
        ("--town=--x=y", {"town": "--x=y"}),
        ("--town -3", {"town": "-3"}),
        ("--floor 3", {"floor": 3}),
        ("--loaves 0x10", {"loaves": 16}),
        ("sell --loaves 2", {"loaves": 2}),
    ],
)
def test_options(arguments, expected):
    assert values(*arguments.split()) == expected
    assert repr(values(*arguments.split())) == repr(expected)


@pytest.mark.parametrize(
    ("arguments", "command", "paths"),
    [
        ([], "bake", ()),
        (["--open", "bake"], "bake", ()),
        (["sell", "a", "--loaves", "2", "b"], "sell", ("a", "b")),
        (["--loaves", "2", "sell", "--", "--open"], "sell", ("--open",)),
        (["sell", "-"], "sell", ("-",)),
    ],
)
def test_commands(arguments, command, paths):
    given = parse(arguments, keys_of(Shop), COMMANDS)
    assert (given.command, given.paths) == (command, paths)


REFUSED = {
    "--lerning_rate 1": "unknown option '--lerning_rate'; did you mean '--learning_rate'?",
    "--learn 1": "unknown option '--learn'; did you mean '--learning_rate'?",
    "--hepl": "unknown option '--hepl'; did you mean '--help'?",
    "--help=3": "--help takes no value",
    "--ext a": "unknown option '--ext'; did you mean '--extras'?",
    "-l 1": "unknown option '-l'; did you mean '-lr'?",
    "-lr1": "unknown option '-lr1'; did you mean '-lr'?",
    "-learning_rate 1": "unknown option '-learning_rate'; did you mean '--learning_rate'?",
    "--no-loaves": "unknown option '--no-loaves'; did you mean '--loaves'?",
    "--zzzzzz": "unknown option '--zzzzzz'; --help lists all",
    "-5": "unknown option '-5'",
    "--LOAVES 1": "unknown option '--LOAVES'",
    "--learning_rate": "--learning_rate lacks its value",
    "--learning_rate=": "--learning_rate lacks its value: it must be a number above 0",
    "--learning_rate --open": "if '--open' is the value, write --learning_rate=--open",
    "--learning_rate -1": "--learning_rate must be a number above 0, not -1",
    "-lr fast": "-lr (learning_rate) must be a number above 0, not 'fast'",
    "--loaves 1.5": "--loaves must be a whole number of at least 1, not 1.5",
    "--loaves "
    + "9" * 30: "--loaves: the whole number 999999999999999999999999999999 does not fit",
    "--town=": "--town must be text of 1 to 4096 characters, none of them NUL, not ''",
    "--town \udcff": "--town must be text of 1 to 4096 characters, none of them NUL, not '\\udcff'",
    "--extras a,,b": "--extras must be a list of words, not the list ['a', '', 'b']",
    "--floor 2": "--floor must be one of 1, 3, not 2",
    "--kind braed": "--kind must be one of bread, cake, not 'braed'; did you mean 'bread'?",
    "--open=maybe": "--open must be true or false, not 'maybe'",
    "--open false": "--open takes no separate value such as 'false'; write --open, --open=false or",
    "--no-open=true": "--no-open takes no value; write --open=true",
    "--loaves 1 --loaves=2": "loaves is given twice, by --loaves and --loaves; once",
    "--open --no-open": "open is given twice, by --open and --no-open; once is enough",
    "seel": "unknown command 'seel'; did you mean 'sell'? (known: bake, sell)",
    "bake cake": "nothing may follow the command bake, not 'cake'",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_is_refused_says_why(arguments):
    with pytest.raises(SettingsError, match=re.escape(REFUSED[arguments])):
        values(*arguments.split())


def test_two_keys_cannot_share_an_option():
    class Twice(Keys):
        """Twice"""

        first: Count = key(1, "first", "x")
        second: Count = key(1, "second", "x")

    with pytest.raises(ValueError, match="two keys have the option -x"):
        parse([], keys_of(Twice))


class Press(Keys):
    """Press"""

    pages: Count = key(2, "pages to print", "p")
    title: Text | None = key(None, "title")
    inks: Words = key(("black",), "inks")


def test_options_of_a_program_without_files():
    options = read_options(
        Press, ["proof", "-p", "3"], "press.py", "Prints.", {"proof": Command("")}
    )
    assert options.command == "proof"
    assert options.values == Press(pages=3)
    assert options.provenance == {"pages": "command line", "title": "default", "inks": "default"}
    assert options.answer is None
    with pytest.raises(SettingsError, match="unexpected word 'proof'; --help lists the options"):
        read_options(Press, ["proof"], "press.py")


def test_help_of_a_program_without_files(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    commands = {"print": Command("print it"), "proof": Command("look at it", "PAGE...")}
    help_text = read_options(Press, ["-h", "--broken"], "press.py", "Prints.", commands).answer
    assert help_text.startswith(
        """\
usage: press.py [command] [options]

Prints.

Commands
  print                             print it [default]
  proof PAGE...                     look at it

Press
  --pages, -p N                     pages to print [2]
  --title TEXT                      title [none]
  --inks A,B                        inks [black]

Help
  --help, -h                        print this text, then stop
"""
    )


WORDS = (
    "--learning_rate -lr --lr --no-open --open -ft --extras --town --floor sell bake -- - = -h "
    "--loaves=1 --=1 -1 1 none a,b false --no- --no ---open -=- --help"
)


@given(st.lists(st.sampled_from(WORDS.split()) | st.text(max_size=8), max_size=8))
def test_no_arguments_make_anything_but_a_settings_error(arguments):
    problem = ""
    try:
        read_options(Shop, arguments, "shop.py", "", COMMANDS)
    except SettingsError as error:
        problem = str(error)
    assert len(problem.splitlines()) < 2
