"""What the benchmarks of a serving node share: a configuration of their own, the program, its load, and waiting."""

import json, os, pathlib, platform, statistics, subprocess, time, urllib.request

HTTP, ADMIN = "127.0.0.1:7141", "127.0.0.1:7241"


def config(path: pathlib.Path, more: str = "", **keys: object) -> pathlib.Path:
    """cluster-config/single.toml on ports of its own, with other values of `keys`, and `more` behind it."""
    lines = pathlib.Path("cluster-config/single.toml").read_text().splitlines()
    for key, value in keys.items():
        assert any(line.startswith(f"{key} = ") for line in lines), key
        lines = [f"{key} = {json.dumps(value, default=str)}" if line.startswith(f"{key} = ") else line for line in lines]
    text = "\n".join(lines).replace("127.0.0.1:7101", HTTP).replace("127.0.0.1:7201", ADMIN)
    path.write_text(text + more)
    return path


class Program:
    def __init__(self, path: str, requests: pathlib.Path):
        self.path, self.requests = path, requests

    def __call__(self, *arguments: object) -> str:
        return subprocess.run([self.path, *map(str, arguments)], check=True, capture_output=True, text=True).stdout

    def load(self, rate: float, seconds: float, http: str = HTTP, **more: object) -> subprocess.Popen:
        flags = [str(part) for key, value in more.items() for part in (f"--{key.replace('_', '-')}", value)]
        command = [self.path, "load", "--url", f"http://{http}", "--requests", self.requests, "--rate", str(rate)]
        return subprocess.Popen([*command, "--duration-s", str(seconds), "--json", *flags], stdout=subprocess.PIPE, text=True)

    def serve(self, config: pathlib.Path, log: pathlib.Path) -> subprocess.Popen:
        node = subprocess.Popen([self.path, "serve", "--config", config], stderr=open(log, "w"))
        await_("the node is ready", lambda: urllib.request.urlopen(f"http://{HTTP}/readyz").status == 200)
        return node


def report(process: subprocess.Popen) -> dict:
    out, _ = process.communicate()
    return json.loads(out)


def status() -> dict:
    with urllib.request.urlopen(f"http://{ADMIN}/admin/status") as answer:
        return json.load(answer)["nodes"][0]


def await_(what: str, holds) -> None:
    ends = time.monotonic() + 120
    while True:
        try:
            if holds():
                return
        except OSError:
            pass
        assert time.monotonic() < ends, what
        time.sleep(0.05)


def rows(rounds_of: dict[str, list[dict]]) -> list[dict]:
    """What each name came to, a round each, as `turret report` reads it."""
    mean = lambda rounds: {key: statistics.mean(one[key] for one in rounds) for key in rounds[0]}
    return [{"name": name, "mean": mean(rounds), "seeds": rounds} for name, rounds in rounds_of.items()]


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.platform()}"


def commit() -> str:
    return subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
