from collections.abc import Sequence


class Train:
    """A recipe, launched by accelerate; without a name, the list of recipes.

    rlred train l1_maxlen --max_steps 2
    """

    def __init__(self, words: Sequence[str]):
        self.words = words

    def run(self) -> int:
        """Runs the recipe; its exit status is the command's."""
        from rlred.train import train

        return train(self.words)
