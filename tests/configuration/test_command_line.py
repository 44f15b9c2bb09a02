"""Options made from keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.configuration.command_line import Command, Program, parse
from library.configuration.reader import read_options
from library.configuration.schema import Count, Files, Keys, Positive, Text, Words, key, keys_of
from library.errors import SettingsError
from tests.helpers.settings import Bakery

COMMANDS = {"bake": Command("bake bread"), "sell": Command("sell loaves", "LOAF...")}


class Shop(Bakery):
    heading = "Shop"
    learning_rate: Positive = key(0.1, "how fast", "lr")
    num_shops: Count = key(1, "shops", "ns")
    fine_tuning: bool = key(False, "by hand", "ft")
    recipes: Files = key((), "recipes")
    slices: Text | None = key(None, "slices", bare="thin")
    mill_options: Text | None = key(None, "options of the mill", takes_options=True)


def values(*arguments):
    *_, given = parse(arguments, keys_of(Shop), COMMANDS)
    assert {each.provenance for each in given.values()} <= {"command line"}
    return {name: each.value for name, each in given.items()}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--recipes a", ("a",)),
        ("--recipes a b c -ft", ("a", "b", "c")),
        ("sell --recipes a,b c --num_shops 2", ("a", "b", "c")),
        ("sell --recipes=a* gs://b/c*", ("a*",)),
        ("sell --recipes a* gs://b/c*", ("a*", "gs://b/c*")),
        ("--recipes a b -- ", ("a", "b")),
    ],
)
def test_files_are_all_words_up_to_the_next_option(arguments, expected):
    assert values(*arguments.split())["recipes"] == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--slices", "thin"),
        ("bake --slices --learning_rate 1", "thin"),
        ("--slices -- ", "thin"),
        ("--slices thick", "thick"),
        ("--slices=thick", "thick"),
        ("--slices none", None),
    ],
)
def test_value_of_an_option_may_be_omitted(arguments, expected):
    assert values(*arguments.split())["slices"] == expected


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
        ("--mill_options --stones=2 -ft", {"mill_options": "--stones=2", "fine_tuning": True}),
        ("--extras none", {"extras": ()}),
        ("--extras [a,b=2]", {"extras": ("a", "b=2")}),
        ("--extras=[]", {"extras": ()}),
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
    assert parse(arguments, keys_of(Shop), COMMANDS)[:2] == (command, paths)


# Arguments → what the message names.
REFUSED = {
    "--lerning_rate 1": "'--lerning_rate'.*'--learning_rate'",
    "--learn 1": "'--learn'.*'--learning_rate'",
    "--hepl": "'--hepl'.*'--help'",
    "--help=3": "--help ",
    "--ext a": "'--ext'.*'--extras'",
    "-l 1": "'-l'.*'-lr'",
    "-lr1": "'-lr1'.*'-lr'",
    "-learning_rate 1": "'-learning_rate'.*'--learning_rate'",
    "--no-loaves": "'--no-loaves'.*'--loaves'",
    "--zzzzzz": "'--zzzzzz'; --help",
    "-5": "'-5'",
    "--LOAVES 1": "'--LOAVES'",
    "--learning_rate": "--learning_rate ",
    "--learning_rate=": "--learning_rate .* 0$",
    "--learning_rate --open": "--learning_rate .*'--open'.*--learning_rate=--open",
    "--learning_rate -1": "--learning_rate .* 0, not -1",
    "-lr fast": r"-lr \(learning_rate\) .* 0, not 'fast'",
    "--loaves 1.5": "--loaves .* 1, not 1.5",
    f"--loaves {'9' * 30}": f"--loaves: .*{'9' * 30}",
    "--town=": "--town .* not ''",
    "--town \udcff": r"--town .* not '\\udcff'",
    "--extras a,,b": r"--extras .* \['a', '', 'b'\]",
    "--extras [a, b]": r"--extras '\[a,'.*'\[a, b\]'",
    "--extras [a]]": r"--extras: '\[a\]\]'",
    "--floor 2": "--floor .* 1, 3, not 2",
    "--kind braed": "--kind .* bread, cake, not 'braed'.*'bread'",
    "--open=maybe": "--open .* true or false, not 'maybe'",
    "--open false": "--open .*'false'.* --open, --open=false or --no-open",
    "--no-open=true": "--no-open .*--open=true",
    "--loaves 1 --loaves=2": "loaves .*--loaves and --loaves",
    "--open --no-open": "open .*--open and --no-open",
    "seel": "'seel'.*'sell'.*bake, sell",
    "bake cake": "'cake'.*bake",
    "learning_rate=0.1": "'learning_rate=0.1'.*'--learning_rate=0.1'",
    "bake learning-rate=0.1": "'learning-rate=0.1'.*'--learning_rate=0.1'",
    "lr=2": "'lr=2'.*'-lr=2'",
    "sell a.jpg learning-rate=2": "'learning-rate=2'.*'--learning_rate=2'",
    "lerning_rate=2": "'lerning_rate=2'.*'--learning_rate=2'",
    "no-open": "'no-open'.*'--no_open'",
    "loaves 2": "'loaves'.*'--loaves'",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_parse_refuses(arguments):
    with pytest.raises(SettingsError, match=REFUSED[arguments]):
        values(*arguments.split())


def test_list_in_brackets_with_spaces_and_quotes():
    assert values("--extras", "[a, 'b, c', 1e-4]") == {"extras": ("a", "b, c", "1e-4")}


def test_keys_cannot_share_an_option():
    class Twice(Keys):
        first: Count = key(1, "first", "x")
        second: Count = key(1, "second", "x")

    with pytest.raises(ValueError, match="-x"):
        parse([], keys_of(Twice), {})


class Press(Keys):
    heading = "Press"
    pages: Count = key(2, "pages to print", "p")
    title: Text | None = key(None, "title")
    inks: Words = key(("black",), "inks")


PROGRAM = Program("press.py", "Prints.", {"print": Command("print it"), "proof": Command("look")})


def test_read_options():
    options = read_options(Press, ["proof", "-p", "3"], PROGRAM)
    assert options.command == "proof"
    assert options.settings == Press(pages=3)
    assert options.answer is None
    with pytest.raises(SettingsError, match="'proof'; --help"):
        read_options(Press, ["proof"], Program("press.py"))


def test_read_options_help(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    commands = {"print": Command("print it"), "proof": Command("look at it", "PAGE...")}
    program = Program("press.py", "Prints.", commands)
    text = read_options(Press, ["-h", "--broken"], program).answer
    assert text.startswith(
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
  --help, -h                        """
    )


WORDS = (
    "--learning_rate -lr --lr --no-open --open -ft --extras --town --floor sell bake -- - = -h "
    "--loaves=1 --=1 -1 1 none a,b false --no- --no ---open -=- --help"
)


@given(st.lists(st.sampled_from(WORDS.split()) | st.text(max_size=8), max_size=8))
def test_any_arguments_are_read_or_refused_in_one_line(arguments):
    problem = ""
    try:
        read_options(Shop, arguments, Program("shop.py", "", COMMANDS))
    except SettingsError as error:
        problem = str(error)
    assert len(problem.splitlines()) < 2
