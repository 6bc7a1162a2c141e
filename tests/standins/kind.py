"""Stands in for kind 0.33.0: its commands, its words (transcripts), its exit codes.

It is copied into a folder ``bin``; the folder above it is its world: ``clusters/NAME`` are the
clusters, ``fail.json`` says which step fails or hangs.
"""

import json
import os
import shutil
import sys
import time

WORLD = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main(argv):
    name = value(argv, "--name", "-n") or "kind"
    with open(f"{WORLD}/log", "a") as log:
        log.write(json.dumps(["kind", *argv]) + "\n")
    words = {key: value(argv, f"--{key}") for key in ("config", "kubeconfig")} | {"name": name}
    fails(" ".join(["kind", *argv[:2]]), words)
    match argv[:2]:
        case ["version"]:
            print("kind v0.33.0 go1.26.8 linux/amd64")
        case ["get", "clusters"]:
            there = sorted(os.listdir(f"{WORLD}/clusters"))
            if there:
                print("\n".join(there))
            else:
                say("no-clusters", words)
        case ["create", "cluster"]:
            create(name, words)
        case ["delete", "cluster"]:
            say("delete", words)
            if exists(name):
                os.unlink(f"{WORLD}/clusters/{name}")
        case ["export", "logs"]:
            need(name, "unknown-cluster", words)
            os.makedirs(f"{argv[2]}/{name}-control-plane", exist_ok=True)
            with open(f"{argv[2]}/{name}-control-plane/kubelet.log", "w") as log:
                log.write("kubelet\n")
            print(argv[2])
        case ["export", "kubeconfig"]:
            need(name, "unknown-cluster", words)
            shutil.copy(f"{WORLD}/kubeconfig", words["kubeconfig"])
        case ["load", "image-archive"]:
            need(name, "load-no-nodes", words)
        case _:
            sys.exit(f"ERROR: unknown command {argv}")


def create(name, words):
    if exists(name):
        say("create-exists", words)
        sys.exit(1)
    if not os.path.exists(words["config"]):
        sys.exit(f"ERROR: failed to create cluster: no such file: {words['config']}")
    with open(f"{WORLD}/clusters/{name}", "w") as file:
        file.write(words["config"])
    fails("kind create half-way", words)  # containers are there: who kills it leaves them
    shutil.copy(f"{WORLD}/kubeconfig", words["kubeconfig"])
    say("create", words)


def exists(name):
    return os.path.exists(f"{WORLD}/clusters/{name}")


def need(name, transcript, words):
    if not exists(name):
        say(transcript, words)
        sys.exit(1)


def value(argv, *names):
    for index, word in enumerate(argv[:-1]):
        if word in names:
            return argv[index + 1]
    return ""


def fails(step, words):
    """What the tests have ordered for this step."""
    with open(f"{WORLD}/fail.json") as file:
        known = json.load(file)
    for begin, how in known.items():
        if step.startswith(begin):
            say(how["text"], words)
            if how["hang"]:
                time.sleep(600)
            if "half-way" in step and "--retain" not in sys.argv and exists(words["name"]):
                os.unlink(f"{WORLD}/clusters/{words['name']}")
            sys.exit(how["code"])


def say(name, words):
    """A transcript, to standard error; or the words themselves."""
    path = f"{WORLD}/transcripts/{name}.txt"
    text = name
    if name and os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            text = file.read()
    for key, word in words.items():
        text = text.replace("{" + key + "}", word or "")
    print(text.rstrip("\n"), file=sys.stderr, flush=True)


main(sys.argv[1:])
