from dataclasses import dataclass

from rlred.flags import option, required


@dataclass(frozen=True, kw_only=True)
class ServeAdapter:
    """An adapter behind an OpenAI-compatible API on this machine, until Ctrl-C (extra `serve`).

    rlred serve l1_maxlen
    rlred serve outputs/l1_maxlen --port 8001 --chat_template_kwargs '{"thinking_budget": 64}'
    """

    adapter: str = required("Folder of an adapter, an export or a whole model.", positional=True)
    host: str = option("localhost", "Address to listen on.")
    port: int = option(8000, "Port to listen on.", metavar="N")
    device: str = option("auto", "auto, cpu or cuda:0.")
    chat_template_kwargs: str | None = option(
        None, 'Template settings of requests without their own, as {"thinking_budget": 64}.', metavar="JSON"
    )

    def __post_init__(self):
        if not 1 <= self.port <= 65535:
            raise ValueError(f"--port must be 1 to 65535, got {self.port}")

    def run(self) -> None:
        """Merges the adapter if it is not merged yet, prints a request, and answers requests."""
        from rlred.publish.server import serve

        told = {"device": self.device, "settings": self.chat_template_kwargs}
        serve(self.adapter, self.host, self.port, **told, say=lambda text: print(text, flush=True))
        print("ended")
