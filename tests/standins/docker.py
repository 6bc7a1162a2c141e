"""Stands in for Docker 28.2.2 (and podman, nerdctl): the few commands that are asked of it."""

import json
import os
import shutil
import sys
import time

WORLD = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NAME = os.path.basename(__file__)


def main(argv):
    with open(f"{WORLD}/log", "a") as log:
        log.write(json.dumps([NAME, *argv]) + "\n")
    fails(" ".join([NAME, *argv]))
    match argv:
        case ["info"]:
            print("Server Version: 28.2.2")
        case ["info", "--format", "{{.DockerRootDir}}" | "{{.Store.GraphRoot}}"]:
            print(f"{WORLD}/root")
        case ["info", "--format", "{{.CgroupVersion}}"]:
            print("2")
        case ["info", "--format", "{{.Host.CgroupsVersion}}"]:
            print("v2")
        case ["ps", "-a", "--filter", chosen, "--format", "{{.Names}}"]:
            if os.path.exists(f"{WORLD}/clusters/{chosen.rpartition('=')[2]}"):
                print("\n".join(load("nodes")))
        case ["image", "inspect", name]:
            if name not in load("images"):
                sys.exit(f"Error response from daemon: No such image: {name}")
        case ["save", "-o", path, name]:
            archive(path, name)
        case ["load", "-i", path]:
            print(f"Loaded image from {path}")
        case ["cp", source, target]:
            node, _, path = target.partition(":")
            shutil.copy(source, place(node, path))
        case ["exec", "-i", node, *command]:
            execute(node, command, sys.stdin.read())
        case ["exec", node, *command]:
            execute(node, command, "")
        case _:
            sys.exit(f"unknown command: docker {argv}")


def execute(node, command, stdin):
    if node not in load("nodes"):
        sys.exit(f"Error response from daemon: No such container: {node}")
    match command:
        case ["test", _, path]:
            sys.exit(0 if os.path.exists(place(node, path)) else 1)
        case ["tee", path]:
            with open(place(node, path), "w") as file:
                file.write(stdin)
            print(stdin, end="")
        case ["cat", "/sys/class/net/eth0/mtu"]:
            print(1450)
        case ["nft", "-f", "-"]:
            with open(place(node, "/nft"), "w") as file:
                file.write(stdin)
        case ["modprobe" | "ip", *_]:
            pass
        case ["iptables-nft-save", "-c"]:
            print(f"# rules of {node}")
        case _:
            sys.exit(f'OCI runtime exec failed: exec: "{command[0]}": executable file not found')


def archive(path, name):
    import io
    import tarfile

    prefix = "localhost/" if NAME == "podman" and "/" not in name else ""
    content = json.dumps([{"RepoTags": [prefix + name]}]).encode()
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("manifest.json")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))


def place(node, path):
    return f"{WORLD}/files/{node}{path.replace('/', '_')}"


def load(name):
    with open(f"{WORLD}/{name}.json") as file:
        return json.load(file)


def fails(step):
    for begin, how in load("fail").items():
        if step.startswith(begin):
            path = f"{WORLD}/transcripts/{how['text']}.txt"
            text = how["text"]
            if text and os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    text = file.read()
            print(text.rstrip("\n"), file=sys.stderr, flush=True)
            if how["hang"]:
                time.sleep(600)
            sys.exit(how["code"])


main(sys.argv[1:])
