from library.reporting.reliability_diagram import reliability_diagram

ROW = {"from": 0.8, "to": 0.9, "guesses": 40, "confidence": 0.86, "accuracy": 0.5}


def test_a_bar_is_as_high_as_its_guesses_are_right():
    drawn = reliability_diagram([ROW, {**ROW, "guesses": 10, "accuracy": 1.0}])
    assert "40 guesses from 80% to 90%: 50.0% right, 86.0% sure" in drawn
    assert 'height="150.0"' in drawn
    assert 'height="300.0"' in drawn
    # Below, guesses: the most fill the height, a fourth of them a fourth.
    assert 'height="44.0"' in drawn
    assert 'height="11.0"' in drawn
