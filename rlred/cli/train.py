from collections.abc import Sequence


class Train:
    """A recipe, launched by accelerate; without a name, the list of recipes.

    rlred train l1_maxlen --max_steps 2
    rlred train --config_file zero2 l1_maxlen --config l1_maxlen_r1_1.5b_8gpu
    """

    def __init__(self, words: Sequence[str]):
        self.words = words

    def run(self) -> int:
        """Runs the recipe; its exit status is the command's."""
        from rlred.train import train

        return train(self.words)
