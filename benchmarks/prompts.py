"""What people ask for: four requests of each kind, from answers that repeat their prompt to answers that do not."""

from __future__ import annotations

LIGHTHOUSE = (
    "The lighthouse at Carrow Point was built in 1857, after three ships were lost on the reef in a single "
    "winter. Its tower of grey granite is 41 metres high and has 196 steps. For more than a hundred years a "
    "keeper and two assistants lived there with their families, and the light, at first a lamp that burned "
    "rape oil, was never out for a whole night. In 1969 the station was automated and the last keeper, Ada "
    "Brennan, moved to the village. Today the tower belongs to a trust that opens it to visitors from April to "
    "October. The trust spends most of what it earns on the roof of the keepers' house, which leaks, and hopes "
    "to show the old lens there again by 2030."
)
MEETING = (
    "The harbour committee met on Tuesday. Mr Okafor reported that the new crane will be delivered on 14 "
    "March, two weeks later than planned, because the foundations need more time to set. Ms Lindqvist asked "
    "whether the ferry can use the north quay until then. It can, but only between six and nine in the "
    "morning. The committee agreed to tell the fishing boats by Friday. The price of a berth will rise by four "
    "per cent in April. A proposal to sell the old ice house was put off until June, since two members had not "
    "read the report."
)
RECIPE = (
    "Wash one kilogram of plums, halve them and take out the stones. Put the plums into a wide pot with 300 "
    "grams of sugar, a stick of cinnamon and the juice of a lemon, and let them stand for two hours. Then "
    "bring the pot to the boil, turn down the heat and stir often, so that nothing burns at the bottom. After "
    "an hour the plums have become a dark paste. Take out the cinnamon, fill the paste into clean jars while "
    "it is hot, and close the jars at once. It keeps for a year in a cool place."
)
LETTER = (
    "Dear Mr Hale, thank you for your letter of 3 May about the bicycle that you bought in our shop. We are "
    "sorry to hear that the brakes make a noise. Please bring the bicycle to our workshop on Monday or on "
    "Tuesday, and we will adjust the brakes while you wait. You do not have to pay for this. If the noise "
    "comes back within a month, we will replace the brakes. We hope that you will enjoy many more rides. Yours "
    "sincerely, Joan Petty"
)

STACK = '''class Stack:
    """A stack of integers."""

    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
        if not self.items:
            raise IndexError("pop from an empty stack")
        return self.items.pop()
'''
ACCOUNT = """def deposit(account, amount):
    if amount <= 0:
        raise ValueError("amount must be positive")
    account["balance"] += amount
    account["history"].append(("deposit", amount))
    return account["balance"]
"""
SHAPES = """function areaOfRectangle(width, height) {
  if (width < 0 || height < 0) {
    throw new Error("a side must not be negative");
  }
  return width * height;
}
"""
TESTS = """def test_add_returns_the_sum():
    calculator = Calculator()
    assert calculator.add(2, 3) == 5


def test_add_takes_negative_numbers():
    calculator = Calculator()
    assert calculator.add(-2, -3) == -5
"""

REQUESTS: dict[str, tuple[str, ...]] = {
    "summarise": tuple(
        f"Summarise this text in three sentences.\n\n{text}" for text in (LIGHTHOUSE, MEETING, RECIPE, LETTER)
    ),
    "edit": (
        f"Repeat this text, but write 1858 instead of 1857.\n\n{LIGHTHOUSE}",
        f"Repeat this text, but write Wednesday instead of Tuesday.\n\n{MEETING}",
        f"Repeat this text, but write apricots instead of plums.\n\n{RECIPE}",
        f"Repeat this letter, but write Ms Stone instead of Mr Hale.\n\n{LETTER}",
    ),
    "code": (
        f"Add a method `peek` to this class and print the whole class.\n\n```python\n{STACK}```",
        f"Write a function `withdraw` in the same style.\n\n```python\n{ACCOUNT}```",
        f"Write the same function for a triangle and for a circle.\n\n```javascript\n{SHAPES}```",
        f"Write four more tests, for `subtract` and `multiply`.\n\n```python\n{TESTS}```",
    ),
    "chat": (
        "Write a short story about a lighthouse keeper who finds a letter.",
        "Explain recursion to a child, with an example from the kitchen.",
        "Why is the sky blue in the day and red in the evening?",
        "What should I pack for a week of walking in the mountains?",
    ),
}
"""Kind -> what is asked."""
