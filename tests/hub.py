"""A stand-in for the Hub: as much of its upload protocol as huggingface_hub needs to push a folder without Xet."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """Serves on a free port of this machine; what was committed is in `files`, path -> bytes."""

    def __init__(self, fail_commits: bool = False):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.cards: list[str] = []
        self.created: list[dict] = []
        self.fail_commits = fail_commits
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.partition("?")[0]
        if path == "/api/validate-yaml":
            self.server.cards.append(json.loads(body)["content"])
            return self.reply({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != "Bearer hf_token":
            return self.reply({"error": "Invalid credentials"}, 401)
        if path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            return self.reply({"url": f"{self.server.url}/me/adapter", "id": "me/adapter"})
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            return self.reply(
                {
                    "files": [
                        {
                            "path": file["path"],
                            "uploadMode": modes[file["path"].endswith(".safetensors")],
                            "shouldIgnore": False,
                        }
                        for file in files
                    ]
                }
            )
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for item in objects:
                item["actions"] = {"upload": {"href": f"{self.server.url}/blob/{item['oid']}"}}
            return self.reply({"transfer": "basic", "objects": objects})
        if "/commit/" in path:
            if self.server.fail_commits:
                return self.reply({"error": "the disk is full"}, 507)
            self.commit([json.loads(line) for line in body.splitlines()])
            return self.reply(
                {"success": True, "commitOid": "0" * 40, "commitUrl": f"{self.server.url}/me/adapter/commit/0"}
            )
        return self.reply({"error": f"no such thing: {path}"}, 404)

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == oid
        self.server.blobs[oid] = content
        self.reply({})

    def commit(self, lines: list[dict]):
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.blobs[value["oid"]]

    def reply(self, value: dict, status: int = 200):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass
