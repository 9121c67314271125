"""The app's page without a browser: what one does over HTTP when it is opened and used."""

import json
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass
class Page:
    """A page as a browser has it: its events by what they are wired to, and what comes back from them."""

    server: str
    session: str
    config: dict[str, Any]

    @classmethod
    def open(cls, server: str, session: str) -> "Page":
        return cls(server, session, httpx.get(f"{server}/config", timeout=60).raise_for_status().json())

    def load(self) -> list[list[Any]]:
        """Results of everything that happens when the page is opened."""
        loads = [one for one in self.config["dependencies"] if any(event == "load" for _, event in one["targets"])]
        return [self.run(one["id"], []) for one in loads]

    def run(self, event: int, data: list[Any]) -> list[Any]:
        body = {"data": data, "fn_index": event, "session_hash": self.session, "event_data": None, "trigger_id": None}
        httpx.post(f"{self.server}/gradio_api/queue/join", json=body, timeout=60).raise_for_status()
        address = f"{self.server}/gradio_api/queue/data"
        with httpx.stream("GET", address, params={"session_hash": self.session}, timeout=60) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    assert message["success"], message
                    return message["output"]["data"]
        raise AssertionError("no answer")

    def token(self) -> str:
        """Of the viewport, which is the value that has one."""
        values = [value for result in self.load() for value in result]
        (token,) = [value["token"] for value in values if isinstance(value, dict) and "token" in value]
        return token

    def change(self, label: str, data: list[Any]) -> list[Any]:
        """What the change of a control leads to, of its events the one with as many inputs as ``data`` has.

        An input that the server keeps for the page is None.
        """
        (control,) = [one["id"] for one in self.config["components"] if one["props"].get("label") == label]
        (event,) = [
            one["id"]
            for one in self.config["dependencies"]
            if [control, "change"] in one["targets"] and len(one["inputs"]) == len(data)
        ]
        return self.run(event, data)
