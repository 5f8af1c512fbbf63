import importlib.util
from dataclasses import dataclass

from rlred.flags import option, required


@dataclass(frozen=True, kw_only=True)
class Play:
    """A page that asks an adapter for three budgets side by side (extra `play`).

    rlred play l1_maxlen
    rlred play outputs/l1_maxlen --port 7861
    """

    adapter: str = required("Folder of an adapter that was trained on budgets.", positional=True)
    host: str = option("localhost", "Address to listen on.")
    port: int = option(7860, "Port to listen on.", metavar="N")

    def __post_init__(self):
        if not 1 <= self.port <= 65535:
            raise ValueError(f"--port must be 1 to 65535, got {self.port}")

    def run(self) -> None:
        """Shows the page until Ctrl-C."""
        if importlib.util.find_spec("gradio") is None:
            raise ValueError("rlred play needs gradio; install it with: pip install 'rlred[play]'")
        from rlred.publish.server import bracketed, check_address, interruptible
        from rlred.publish.space import played

        check_address(self.host, self.port)
        with interruptible(), played(self.adapter) as folder:
            from rlred.publish.app import THEME, page

            page(folder).launch(theme=THEME, server_name=bracketed(self.host), server_port=self.port)
