#!/usr/bin/env python3
"""Runs the tests of the workspace, several programs at once: most of them wait most of the time, for timers, for machines
that boot, for nodes that are to be believed dead. One after the other they take three times as long.

    side_by_side.py [--at-once N] [--first NAME,NAME] [--each NAME,NAME] CARGO [COMMAND...]

Builds with CARGO, which shows its progress, and runs what it built, each in the folder of its package as cargo does, and
each COMMAND (one argument, for a shell) like another test program. What a program prints is shown whole when it has ended, so
that it can be read as if they had run in turn. --each: programs whose tests run each in a process of its own. --first: those
that take longest. Ends with 1 if any failed, and names them.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time


# What runs now: by process, its name, itself, its output, since when.
running = {}


def programs(cargo, each):
    """Test programs as (name, arguments, folder)."""
    build = subprocess.Popen(
        cargo + ["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"],
        stdout=subprocess.PIPE, text=True)
    found = []
    for line in build.stdout:
        message = json.loads(line)
        if message.get("reason") != "compiler-artifact" or not message["profile"]["test"] or not message.get("executable"):
            continue
        folder = os.path.dirname(message["manifest_path"])
        kind = message["target"]["kind"][0]
        name = message["target"]["name"] + {"test": "", "bin": " (program)"}.get(kind, " (library)")
        program = message["executable"]
        if name not in each:
            found.append((name, [program, "--show-output"], folder))
            continue
        listed = subprocess.run([program, "--list", "--format=terse"], cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
        tests = [line.removesuffix(": test") for line in listed.stdout.splitlines() if line.endswith(": test")]
        found += [(f"{name} {test}", [program, "--exact", test, "--show-output"], folder) for test in tests]
    if build.wait() != 0:
        sys.exit(build.returncode)
    return sorted(found)


def main():
    arguments = argparse.ArgumentParser(usage=__doc__)
    arguments.add_argument("--at-once", type=int, default=2 * (os.cpu_count() or 1))
    arguments.add_argument("--first", default="")
    arguments.add_argument("--each", default="")
    arguments.add_argument("cargo")
    arguments.add_argument("commands", nargs="*")
    arguments = arguments.parse_args()
    cargo = arguments.cargo.split()

    waiting = programs(cargo, arguments.each.split(","))
    weftd = next((program[1][0] for program in waiting if program[0] == "weftd (library)"), "")
    for command in arguments.commands:
        command = command.replace("{weftd}", weftd)
        name = os.path.splitext(os.path.basename(command.split()[0]))[0]
        waiting.append((name, ["bash", "-c", command], os.getcwd()))
    waiting.append(("documentation", cargo + ["test", "--workspace", "--doc", "--quiet"], os.getcwd()))
    first = arguments.first.split(",")
    waiting.sort(key=lambda program: next(
        (place for place, name in enumerate(first) if program[0] == name or program[0].startswith(name + " ")), len(first)))
    every, start = len(waiting), time.monotonic()
    print(f"side by side: {every} programs, {arguments.at_once} at once", flush=True)

    ended, failed = 0, []
    while waiting or running:
        while waiting and len(running) < arguments.at_once:
            name, command, folder = waiting.pop(0)
            output = tempfile.TemporaryFile()
            process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            running[process.pid] = (name, process, output, time.monotonic())
        # Without reaping it: the process' own object wants to do that.
        pid = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT).si_pid
        if pid not in running:
            os.waitpid(pid, 0)
            continue
        name, process, output, since = running.pop(pid)
        status = process.wait()
        ended += 1
        print(f"\n     Running {name}: {time.monotonic() - since:.0f} s", flush=True)
        output.seek(0)
        for line in output:
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        if status != 0:
            failed.append(name)
            print(f"side by side: {name} failed" + (f": exit status {status}" if status > 0 else f": signal {-status}"))
        still = ", ".join(name for name, *_ in running.values())
        print(f"side by side: {ended} of {every} ended after {time.monotonic() - start:.0f} s"
              + (f", still running: {still}" if still else ""), flush=True)
    if failed:
        print(f"side by side: failed: {', '.join(failed)}")
        sys.exit(1)


def ended_by(number, _frame):
    for _, process, _, _ in running.values():
        process.terminate()
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, ended_by)
    signal.signal(signal.SIGTERM, ended_by)
    main()
