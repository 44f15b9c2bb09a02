from library.training.plan import Plan


def test_steps_are_those_of_the_epochs_unless_there_are_to_be_fewer():
    assert Plan(train_epochs=3).total_steps(7) == 21
    assert Plan(train_epochs=3, max_train_steps=5).total_steps(7) == 5
    assert Plan(train_epochs=3, max_train_steps=50).total_steps(7) == 21
